"""An adapter in a folder -> a plain LoRA, or a merged model, measured before it counts as done."""
