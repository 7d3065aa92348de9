from mcfa_fast.cli import app

app()
