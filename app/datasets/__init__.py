"""Named collections of training cases, and immutable snapshots of them that jobs are pinned to."""
