"""What quantizing a model costs and brings: fourfold.analyze, its table, and its page."""
