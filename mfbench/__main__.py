from mfbench.installation import missing_packages

if missing_packages():
    from mfbench.bare import main
else:
    from mfbench.cli import main

main()
