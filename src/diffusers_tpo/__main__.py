"""`python -m diffusers_tpo COMMAND`, and so `accelerate launch -m diffusers_tpo train` for several GPUs."""

from .commands.console import main


if __name__ == "__main__":
    main()
