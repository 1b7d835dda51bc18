from mfbench.cli import main

main()
