"""The central teacher: model, distiller, evaluation, checkpoint, recorder and its ServerApp."""
