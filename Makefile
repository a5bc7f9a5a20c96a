# Thin wrappers; README.md gives the same commands for Windows and macOS.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
DATA ?= $(SEGMENT_ANYTHING_MED_DATA)
MINUTES ?= 60
TRAINED ?= out/embedded
TRAINING_LEAVES := state.pt average.pt moments1.pt moments2.pt embedded.onnx log.jsonl figures.json curve.png
OUTPUT ?= out/gpu-bench

.PHONY: demo env test train-embedded gpu-train bench bench-accuracy bench-invariance bench-cost bench-latency bench-mrml bench-speed bench-embedded gpu-bench clean

demo: $(VENV)/.installed            ## segment an organ of a made-up CT and draw it
	$(RUN) -m SegmentAnythingMedLib demo --output out/demo

env: $(VENV)/.developed             ## everything for development

test: $(VENV)/.developed            ## what CI runs
	bash .ci/run

bench: $(VENV)/.developed           ## all figures; DATA=folder of the development data
	$(RUN) -m SegmentAnythingMedLib.benchmark all $(if $(DATA),--data $(DATA)) --output out/bench

bench-accuracy bench-invariance bench-cost bench-latency bench-mrml: bench-%: $(VENV)/.developed
	$(RUN) -m SegmentAnythingMedLib.benchmark $* $(if $(DATA),--data $(DATA)) --output out/bench

bench-speed: $(VENV)/.developed     ## propagation beside the packages a user would run instead
	$(RUN) -m SegmentAnythingMedLib.benchmark speed --output out/bench

bench-embedded: $(VENV)/.developed  ## what the embedded model must reach; MODEL=name for another, WEIGHTS=file for other weights
	$(RUN) -m SegmentAnythingMedLib.benchmark embedded $(if $(DATA),--data $(DATA)) --output out/bench \
	    $(if $(MODEL),--model $(MODEL)) $(if $(WEIGHTS),--weights $(WEIGHTS))

train-embedded: $(VENV)/.developed  ## go on training the embedded model on the CPU for MINUTES, in TRAINED
	$(RUN) -m SegmentAnythingMedLib.finetune.train_embedded --minutes $(MINUTES) --output $(TRAINED) --threads 1

gpu-train: MINUTES = 9
gpu-train:                          ## the same on a GPU machine with any Python that has torch; KEEP=folder for a copy
	PYTHONPATH=.$(if $(PYTHONPATH),:$(PYTHONPATH)) $(PYTHON) -m SegmentAnythingMedLib.finetune.train_embedded \
	    --device cuda --minutes $(MINUTES) --output $(TRAINED)
	$(if $(KEEP),mkdir -p $(KEEP) && cp $(addprefix $(TRAINED)/,$(TRAINING_LEAVES)) $(KEEP))

gpu-bench: MINUTES = 9
gpu-bench:                          ## frames per second on a GPU beside sam2; no environment is made; MODELS, SIDES, ONLY
	PYTHONPATH=.$(if $(PYTHONPATH),:$(PYTHONPATH)) $(PYTHON) -m SegmentAnythingMedLib.benchmark.gpu_speed \
	    --minutes $(MINUTES) --output $(OUTPUT) $(if $(MODELS),--models $(MODELS)) $(if $(SIDES),--sides $(SIDES)) \
	    $(if $(ONLY),--only $(ONLY))

$(VENV)/.installed: pyproject.toml
	@test -e $(VENV)/.developed || $(PYTHON) .ci/environment.py --folder $(VENV)
	@touch $@

$(VENV)/.developed: pyproject.toml .ci/environment.py
	$(PYTHON) .ci/environment.py --develop --folder $(VENV)

clean:
	rm -rf $(VENV) out build dist
