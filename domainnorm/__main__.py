"""``python -m domainnorm`` is the console command ``domainnorm``."""

from domainnorm.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
