"""``python -m softbeam`` is the command ``softbeam``."""

from softbeam import main

if __name__ == "__main__":
    main()
