"""The command ``decompose``: signals are handled before anything heavy is imported."""

from decomposition import interruption


def main() -> None:
    """Entry point; exit codes: 0 done, 1 said what is wrong, 130 Ctrl-C, 143 SIGTERM."""
    interruption.install()
    from decomposition.cli import main as command

    command()


if __name__ == "__main__":
    main()
