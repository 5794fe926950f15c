"""The federated-distillation protocol: labels, codecs, wire, losses, aggregation, sampling, caching, registry.

Not here: what a client senses and how it learns (clients), the teacher (server), worlds and launches (sim).
"""
