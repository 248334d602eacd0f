"""All of timm converted: what is kept, what is refused, and whether logits stay the same."""
