# Thin wrappers; README.md gives the same commands for Windows and macOS.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
DATA ?= $(SEGMENT_ANYTHING_MED_DATA)

.PHONY: demo env test bench bench-accuracy bench-invariance bench-cost bench-latency clean

demo: $(VENV)/.installed            ## segment an organ of a made-up CT and draw it
	$(RUN) -m SegmentAnythingMedLib demo --output out/demo

env: $(VENV)/.developed             ## everything for development

test: $(VENV)/.developed            ## what CI runs
	bash .ci/run

bench: $(VENV)/.developed           ## all figures; DATA=folder of the development data
	$(RUN) -m SegmentAnythingMedLib.benchmark all $(if $(DATA),--data $(DATA)) --output out/bench

bench-accuracy bench-invariance bench-cost bench-latency: bench-%: $(VENV)/.developed
	$(RUN) -m SegmentAnythingMedLib.benchmark $* $(if $(DATA),--data $(DATA)) --output out/bench

$(VENV)/.installed: pyproject.toml
	@test -e $(VENV)/.developed || $(PYTHON) .ci/environment.py --folder $(VENV)
	@touch $@

$(VENV)/.developed: pyproject.toml .ci/environment.py
	$(PYTHON) .ci/environment.py --develop --folder $(VENV)

clean:
	rm -rf $(VENV) out build dist
