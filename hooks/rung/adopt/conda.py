"""A conda environment, as far as its packages are on the Python Package Index, too."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from packaging.utils import canonicalize_name

# Names that differ on the Python Package Index.
PYPI_NAMES = {
    "sklearn": "scikit-learn",
    "pytorch": "torch",
    "pytorch-cpu": "torch",
    "pytorch-gpu": "torch",
    "pytorch-geometric": "torch-geometric",
    "pyg": "torch-geometric",
    "py-xgboost": "xgboost",
    "py-xgboost-cpu": "xgboost",
    "py-xgboost-gpu": "xgboost",
    "matplotlib-base": "matplotlib",
    "seaborn-base": "seaborn",
    "dask-core": "dask",
    "tensorflow-gpu": "tensorflow",
    "tensorflow-base": "tensorflow",
    "keras-gpu": "keras",
    "opencv": "opencv-python",
    "py-opencv": "opencv-python",
    "msgpack-python": "msgpack",
    "pytables": "tables",
    "faiss": "faiss-cpu",
    "python-graphviz": "graphviz",
    "psycopg2": "psycopg2-binary",
    "ruamel-yaml": "ruamel.yaml",
}
# The same on both: what people put into an environment without importing it under that name.
WELL_KNOWN = """
    black bokeh boto3 catboost click dask dvc fastapi fastparquet flake8 flask gensim geopandas
    gitpython gunicorn h5py huggingface-hub hydra-core imbalanced-learn ipykernel ipython
    ipywidgets isort joblib jupyter jupyterlab jupytext keras lightgbm lxml matplotlib mlflow mypy
    nbconvert networkx nltk notebook numba numpy openpyxl optuna pandas papermill pillow plotly
    polars pre-commit prefect psutil pyarrow pydantic pylint pytest pytest-cov python-dateutil
    python-dotenv pytorch-lightning pyyaml ray requests rich ruff s3fs scikit-image scikit-learn
    scipy seaborn shap spacy sqlalchemy statsmodels streamlit sympy tensorboard tensorflow
    tokenizers torchaudio torchvision tqdm transformers typer umap-learn uvicorn wandb xarray
    xgboost xlrd
"""
SAME_NAMES = frozenset(WELL_KNOWN.split())
# A project has these, its wheels bring them, or it needs none.
TOOLS = (
    r"python|python_abi|pip|setuptools|wheel|uv|mkl.*|(open|lib)?(blas|lapack).*|libgcc.*|libgomp|"
    r"intel-openmp|llvm-openmp|ca-certificates|_.*"
)
CUDA = r"cuda.*|cudnn.*|nccl|pytorch-cuda|.*-gpu|pytorch-mutex"
# What conda installs that is not a Python package.
PROGRAMS = (
    rf"{CUDA}|lib(stdcxx|protobuf|png|jpeg|tiff|ffi|xml2).*|gcc.*|gxx.*|llvm.*|compilers|make|cmake|"
    r"cpuonly|vc|vs20.*|r|r-.*|nodejs|openjdk|git|git-lfs|curl|wget|ffmpeg|graphviz|mamba|"
    r"conda(-[a-z-]+)?|openssl|sqlite|zlib|tk|readline|ncurses|xz|bzip2"
)


@dataclass
class CondaEnvironment:
    """What a conda environment needs, as pip writes it."""

    requirements: list[str] = field(default_factory=list)
    pip_lines: list[str] = field(default_factory=list)
    has_cuda: bool = False
    notes: list[str] = field(default_factory=list)


def read_environment(content: dict[str, Any], imported: Collection[str]) -> CondaEnvironment:
    """Return what a conda environment needs.

    A name of conda's may be another package's on PyPI. So it is adopted if it is well known, or if
    the code imports a module of that name.

    Args:
        content: The environment.
        imported: The top-level modules that the repository's code imports.
    """
    environment = CondaEnvironment()
    programs = list[str]()
    unknown = list[str]()
    modules = {canonicalize_name(module) for module in imported}
    dependencies = content.get("dependencies")
    for item in dependencies if isinstance(dependencies, list) else ():
        if isinstance(item, dict):
            environment.pip_lines += [str(line) for line in item.get("pip") or ()]
            continue
        match = re.fullmatch(r"(?:[\w./-]+::)?([\w.+-]+)(?:\[.*\])?\s*(.*)", str(item).strip())
        name = match[1].lower() if match else str(item)
        environment.has_cuda |= re.fullmatch(CUDA, name) is not None
        canonical = canonicalize_name(name)
        if re.fullmatch(TOOLS, name):
            continue
        is_known = canonical in PYPI_NAMES or canonical in SAME_NAMES
        if match and (is_known or (canonical in modules and not re.fullmatch(PROGRAMS, name))):
            version = re.sub(r"\s+", "", match[2])
            pypi_name = PYPI_NAMES.get(canonical, match[1])
            environment.requirements.append(f"{pypi_name}{standard_version(version)}")
        elif re.fullmatch(PROGRAMS, name):
            programs.append(name)
        else:
            unknown.append(name)
    if programs:
        environment.notes.append(
            f"{', '.join(programs)}: not from PyPI, so the machine or the image has to have what "
            "your code needs of it"
        )
    if unknown:
        environment.notes.append(
            f"{', '.join(unknown)}: not adopted, as no code imports it and PyPI may have another "
            "package of that name: uv add --group adopted NAME"
        )
    return environment


def standard_version(version: str) -> str:
    """Return a version of conda (=1.2, ==1.2=build, 1.2.*) as PEP 440 writes it."""
    if exact := re.fullmatch(r"==([^=<>,|]+)(=.*)?", version):
        return f"=={exact[1]}"
    if pinned := re.fullmatch(r"=?([^=<>!~,|]+?)(\.?\*)?(=.*)?", version):
        return f"=={pinned[1]}.*" if pinned[1] != "*" else ""
    return version
