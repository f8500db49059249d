"""Training: trainer.py has the loop, step.py one step of it, pseudo_labels.py what the teacher contributes."""
