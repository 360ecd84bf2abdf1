"""Where graders written in Python run: a box with no network, no files of ours, no processes."""
