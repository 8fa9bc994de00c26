from deeplab_jax.cli import main

raise SystemExit(main())
