"""From the rows of a data set to the batches of a step."""
