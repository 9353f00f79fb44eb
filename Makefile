# make demo    the whole way on synthetic voices, below ./demo
# make demo-tdsv    the same in text-dependent mode
# make test    lint and tests
# make bench   the benchmarks (with PyTorch as the peer of training)

PYTHON ?= python3
BIN := .venv/bin
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo demo-tdsv test lint bench clean

demo: .venv/done
	rm -rf demo
	$(BIN)/python tests/voices.py demo/raw
	$(BIN)/python data_preprocess.py --raw_path demo/raw --train_path demo/train --test_path demo/test
	$(BIN)/python model.py --train True --train_path demo/train --model_path demo/model --speaker_number 8 \
		--iteration 1500 --optim adam --beta1 0.9 --beta2 0.999 --lr 0.002 --schedule cosine --valid_every 250 --valid_ratio 0.2
	$(BIN)/python test.py --test_path demo/test --model_path demo/model --report_path demo/report
	@echo
	@echo "The model is in demo/model, the pictures are in demo/report. With your own recordings, a folder per speaker:"
	@echo "  $(BIN)/python data_preprocess.py --raw_path YOUR_FOLDER"
	@echo "  $(BIN)/python model.py --train True --speaker_number 24 --optim adam --beta1 0.9 --beta2 0.999 --lr 0.002 \\"
	@echo "      --schedule cosine --iteration 8500"
	@echo "  $(BIN)/python test.py"

demo-tdsv: .venv/done
	rm -rf demo/tdsv
	$(BIN)/python tests/voices.py demo/tdsv/raw --texts 1
	$(BIN)/python data_preprocess.py --tdsv True --raw_path demo/tdsv/raw --train_path demo/tdsv/train --test_path demo/tdsv/test
	$(BIN)/python model.py --train True --train_path demo/tdsv/train --model_path demo/tdsv/model --speaker_number 8 \
		--iteration 1000 --optim adam --beta1 0.9 --beta2 0.999 --lr 0.002 --schedule cosine --valid_every 250 --valid_ratio 0.2
	$(BIN)/python test.py --test_path demo/tdsv/test --model_path demo/tdsv/model --report_path demo/tdsv/report

test: lint .venv-listen/done
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(PYTEST_FLAGS)

lint: .venv/tests
	$(BIN)/ruff check .

bench: .venv/tests
	$(BIN)/python -m pip install -q -r tests/requirements-benchmark.txt
	$(BIN)/python tests/benchmark_preprocess.py
	$(BIN)/python tests/benchmark_training.py
	$(BIN)/python tests/benchmark_workers.py
	$(BIN)/python tests/benchmark_data.py
	$(BIN)/python tests/benchmark_verify.py
	$(BIN)/python tests/benchmark_measures.py
	$(BIN)/python tests/benchmark_export.py
	$(BIN)/python tests/benchmark_gui.py pretrained
	$(BIN)/python tests/benchmark_live.py

.venv/done: requirements.txt requirements-listen.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else "Python 3.11, 3.12 or 3.13 \
	is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -r requirements.txt
	touch $@

.venv/tests: .venv/done tests/requirements.txt
	$(BIN)/python -m pip install -q -r tests/requirements.txt
	touch $@

.venv-listen/done: requirements-listen.txt
	$(PYTHON) -m venv .venv-listen
	.venv-listen/bin/python -m pip install -q -r requirements-listen.txt
	touch $@

clean:
	rm -rf .venv .venv-listen demo cache .pytest_cache .ruff_cache
