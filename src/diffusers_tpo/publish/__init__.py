"""What the world sees of a run: cards, curves and the Hub."""
