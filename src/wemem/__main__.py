"""``python -m wemem`` is ``wemem``."""

from wemem.cli import main

if __name__ == "__main__":
    main()
