"""From captioned clips to a served model folder: stages text, data, vae, base, causal, export (`python -m train
STAGE`).
"""
