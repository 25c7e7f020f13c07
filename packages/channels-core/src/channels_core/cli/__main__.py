from channels_core.cli import main

main()
