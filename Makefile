.PHONY: install check format test slow smoke frontier learning-rates exact-world figures assets

install:            ## everything a contributor needs
	pip install ".[dev]"

check:              ## what CI runs after installing: format, lint, types, layers, tests
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	pytest

format:
	ruff format .
	ruff check --fix .

test:
	pytest

slow:               ## minutes; not part of CI
	pytest -m slow

smoke:              ## the whole frontier at smoke scale, about a minute
	python experiments/run_imdb_frontier.py --profile smoke

frontier:           ## the main job: results/imdb_frontier
	python experiments/run_imdb_frontier.py

learning-rates:     ## results/learning_rates
	python experiments/search_learning_rates.py

exact-world:        ## results/exact_world, a few minutes
	python experiments/validation/run_exact_world.py

figures:            ## every committed figure again, from its records
	python experiments/make_figures.py

assets:             ## suite/assets, about an hour and a half on 2 cores
	python experiments/assets/train_assets.py language-model
	python experiments/assets/train_assets.py prompts
	python experiments/assets/train_assets.py classifier
