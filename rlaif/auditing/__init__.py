"""How far a judge can be trusted: figures over arrays, what they mean in words, plots and the report. Reads no files
and asks no judge; `rlaif.engine.auditing` and `rlaif.engine.probing` do."""
