"""An OpenAI-compatible streaming server over Transformers, run in the engine's interpreter: `python -m` this package.

Its own decode loop over `model.forward` puts each token on the socket as soon as it is picked. The parts, in the order
in which a request passes through them: serve (HTTP) → asking (JSON in) → schedule (who is next) → runtime (the model)
→ picking (which token) → text (its characters) → answering (JSON out) → serve.
"""
