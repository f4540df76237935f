# Every target is `python3 dev.py TARGET`; use that where there is no make.
# Another interpreter: make test PYTHON=python3.12     More arguments: make test ARGS="-k tiling"
PYTHON ?= python3
ARGS ?=

.PHONY: help demo test test-slow test-data test-scene lint types imports bench lists screenshots clean
help:
	@$(PYTHON) dev.py --help
demo test test-slow test-data test-scene lint types imports bench lists screenshots clean:
	@$(PYTHON) dev.py $@ $(ARGS)
