"""The help page of each command: options in panels, the required ones first, and flags without a type."""

from typing import Any

from typer.core import TyperCommand, TyperGroup

from cinefeed.cli.inputs import check_paths
from cinefeed.core.plugins import Kind, plugin_names

# The panels of commands with many options, in order; options that are not listed stay in the panel "Options".
_FLOW = {
    "Required, here or in --config": "config target group no_group split_column frame",
    "Data": """
        where drop_missing task classes val test stratify seed balance sampler covariates weight views stack mask
        private
    """,
    "Clip and frame": "frames stride rate window clips_per_video rotate shift geometry",
    "Batches and workers": """
        batch_size drop_last interleave workers backend prefetch memory timeout_seconds on_error max_bad
    """,
}
_PANELS: dict[str, dict[str, str]] = {
    "train": {name: f"{options} out" if name.startswith("Required") else options for name, options in _FLOW.items()}
    | {
        "Model": "model precision threads",
        "Training": """
            epochs learning_rate schedule warmup_epochs weight_decay label_smoothing loss patience min_improvement folds
        """,
        "Evaluation": "threshold metrics no_baselines",
        "Output": "overwrite tensorboard as_json help",
    },
    "inspect": _FLOW | {"Output": "transforms out as_json help"},
    "bench": _FLOW | {"Measurement": "seconds epochs", "Output": "as_json help"},
    "scan": {
        "Output": "out shard private salt as_json help",
        "Labels": "labels on path_columns unmatched share_labels",
        "Reading": "verify workers axes slice window stream frames keep on_damage",
        "Limits for files that others made": """
            max_frame_bytes max_unpacked_bytes max_frames max_samples_per_file max_file_seconds
        """,
    },
    "evaluate": {
        "For a run folder": "part manifest where clips out",
        "For a table of predictions": "target task classes group threshold",
        "For both": "unit subgroups metrics as_json help",
    },
    "check": {
        "Data": "target task group nuisance where config private",
        "Clip and frame": "frames stride rate window",
        "Output": "strict page groups workers as_json help",
    },
    "pack": {
        "Output": "out codec quality gop max_bytes rows_per_shard workers as_json help",
        "Parts": "shard engine address parts",
        "Frames": "short_side size fit channels rate margin window",
        "Rows": "where on_error max_bad",
        "Private data": "private keep_ids allow_burned_in",
        "Check of a packed data set": "verify",
    },
    "report": {
        "For a table of predictions": "unit group subgroups task classes threshold",
        "Output": "out as_json help",
    },
}


_PLUGINS: dict[str | None, Kind] = {"sampler": "samplers", "model": "models", "metrics": "metrics", "codec": "codecs"}


class Command(TyperCommand):
    """A command whose help page has panels; the required options come first."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command after a check of the paths that it was given."""
        check_paths(ctx.params, flags=option_flags(self), command=str(ctx.info_name))
        return super().invoke(ctx)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page, with the names of plug-ins."""
        for parameter in self.params:
            names = plugin_names()[_PLUGINS[parameter.name]] if parameter.name in _PLUGINS else []
            if names:
                parameter.help = f"{parameter.help} Of plug-ins: {', '.join(names)}."  # type: ignore[attr-defined]
        super().format_help(ctx, formatter)

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters in the order of the help page."""
        parameters: list[Any] = [*super().get_params(ctx)]
        panels = _PANELS.get(str(ctx.info_name), {})
        panel_of = {name: panel for panel, names in panels.items() for name in names.split()}
        for parameter in parameters:
            _hide_flag_type(parameter)
            if panel := panel_of.get(parameter.name):
                parameter.rich_help_panel = panel
        order = [*dict.fromkeys(panel_of.values())]
        names = [*panel_of]

        def place(parameter: Any) -> tuple[int, bool, int]:
            panel = panel_of.get(parameter.name)
            if panel is None:
                return -1, not parameter.required, 0
            return order.index(panel), not parameter.required, names.index(parameter.name)

        return sorted(parameters, key=place)


class Group(TyperGroup):
    """The root command, whose flags have no type on the help page."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters."""
        parameters = super().get_params(ctx)
        for parameter in parameters:
            _hide_flag_type(parameter)
        return list(parameters)


def option_flags(command: Any) -> dict[str, str]:
    """Return the options of a command by the name of their argument, such as {"path_columns": "--path-columns"}."""
    return {
        parameter.name: parameter.opts[0]
        for parameter in command.params
        if parameter.opts and parameter.opts[0].startswith("--")
    }


def _hide_flag_type(parameter: Any) -> None:
    """Set what the help page shows as the type of a parameter: nothing for flags, the type of one value for lists."""
    if getattr(parameter, "is_flag", False):
        parameter.metavar = ""
    elif getattr(parameter, "multiple", False):
        parameter.metavar = "<str>"
    elif parameter.nargs == -1:  # a list of arguments, whose metavar would be its name
        parameter.display_type_rich = lambda ctx: "<path>"
