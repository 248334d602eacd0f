"""Where the names of a recipe come from: one registry for each kind of named section."""

from __future__ import annotations

from domainnorm.registry import Registry

ENCODERS = Registry("encoder", "domainnorm.encoders")
METHODS = Registry("method", "domainnorm.methods")
TASKS = Registry("task", "domainnorm.tasks")
DATASETS = Registry("dataset", "domainnorm.data.datasets")
STATISTICS = Registry("statistics", "domainnorm.norms.statistics")
MODULATIONS = Registry("modulation", "domainnorm.norms.modulations")
PERTURBATIONS = Registry("perturbation", "domainnorm.perturbations")
