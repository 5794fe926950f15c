"""The federated-distillation protocol: labels, codecs, wire, losses, aggregation, sampling, caching, registry.

Not here: what a client senses (clients.sensing), the teacher (server), worlds and launches (sim).
"""
