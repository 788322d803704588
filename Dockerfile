# docker build --tag experiments .
# docker run --rm --volume "$PWD/runs:/app/runs" --volume "$PWD/data:/app/data" experiments trainer.max_epochs=3
# mkdir runs data    (before, or Docker makes them as root)
# PyPI's torch is the build for CUDA, which runs on CPUs too; a GPU needs its container toolkit and --gpus all.
FROM python:3.12-slim

# for those who work in it as a development container
RUN apt-get update && apt-get install --yes --no-install-recommends git && rm -rf /var/lib/apt/lists/*
# its id is that of the first user of most Linux machines, so that runs belong to whom they should
RUN useradd --uid 1000 --create-home trainer && mkdir --parents /app/runs /app/data && chown --recursive trainer /app
WORKDIR /app

# the libraries first: they change less often than the code
COPY pyproject.toml README.md LICENSE ./
RUN mkdir --parents src/experiments src/hydra_plugins conf scripts && touch src/experiments/__init__.py \
    && pip install --no-cache-dir --editable ".[sweep]"
COPY conf conf
COPY scripts scripts
COPY src src

USER trainer
VOLUME ["/app/data", "/app/runs"]
ENTRYPOINT ["python", "scripts/train.py"]
