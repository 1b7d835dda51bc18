"""The process in which one provider runs, and the harness's connection to it."""
