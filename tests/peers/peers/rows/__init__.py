"""What is measured, by groups; each module has a function `measure(stage)` that returns rows."""
