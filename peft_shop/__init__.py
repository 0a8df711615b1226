"""Which parameter-efficient fine-tuning method, with which configuration, for my model?"""
