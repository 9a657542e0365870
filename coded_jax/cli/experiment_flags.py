"""The flags that describe an experiment, shared by the scripts: `config.Config`."""

from __future__ import annotations

from absl import flags

from coded_jax import codes, data, models
from coded_jax.cli.command_line import integers
from coded_jax.codes import config as code_config
from coded_jax.codes import erasures, learned_config, networks, sums
from coded_jax.data import augmentation
from coded_jax.evaluation import predictions
from coded_jax.runs import config, ranges
from coded_jax.training.config import STAGE_TRAININGS

DEFAULT = config.Config()

flags.DEFINE_integer("seed", DEFAULT.seed, "fixes the run")
flags.DEFINE_string("dataset", DEFAULT.dataset, f"one of {', '.join(data.DATASETS)}")
flags.DEFINE_string(
    "base_model", DEFAULT.base_model, f"one of {', '.join(models.BASE_MODELS)}"
)
flags.DEFINE_float("base_width", DEFAULT.base_width, "times the network's own maps")
flags.DEFINE_list(
    "stages",
    None,
    "coded stages as first-last block, from 1 on, as 1-2,3-4; all blocks if not given",
)
flags.DEFINE_enum(
    "stage_training",
    DEFAULT.stage_training,
    STAGE_TRAININGS,
    "on what the stages before reconstructed, or on what they should have",
)
flags.DEFINE_enum(
    "stage_losses",
    DEFAULT.stage_losses,
    predictions.STAGE_LOSSES,
    "what is lost holds for all stages, or is drawn for each",
)
flags.DEFINE_integer("k", DEFAULT.k, "data pieces")
flags.DEFINE_integer("r", DEFAULT.r, "parity pieces")
flags.DEFINE_integer("l", DEFAULT.l, "most results lost in training; r if not given")
flags.DEFINE_string(
    "grid", None, "rows x columns of pieces, as 2x2; k x 1 if not given"
)
flags.DEFINE_enum(
    "recipe", DEFAULT.recipe, learned_config.RECIPES, "decoder and schedule"
)
flags.DEFINE_enum(
    "split",
    DEFAULT.split,
    code_config.SPLITS,
    "pieces of one image, or k images coded together by the whole network",
)
flags.DEFINE_enum("code", DEFAULT.code, list(codes.CODES), "the erasure code")
flags.DEFINE_list(
    "baselines", list(DEFAULT.baselines), "other codes evaluated beside it; may be ''"
)
flags.DEFINE_integer("seeds", DEFAULT.seeds, "how often each code is trained")
flags.DEFINE_integer(
    "tried", DEFAULT.tried, "most results lost in the evaluation; r if not given"
)
flags.DEFINE_enum(
    "encoder",
    None,
    list(networks.ENCODERS),
    "of a learned code; mlp, but linear for systematic codes of deep networks",
)
flags.DEFINE_enum(
    "decoder",
    None,
    list(networks.DECODERS),
    "likewise; mlp, but low_rank for systematic codes of deep networks",
)
flags.DEFINE_integer("encoder_width", None, "of hidden layers; its own if not given")
flags.DEFINE_integer("decoder_width", None, "of hidden layers; its own if not given")
flags.DEFINE_list("dilations", list(DEFAULT.dilations), "of the layers of conv nets")
flags.DEFINE_list(
    "decoder_dilations", None, "of the decoder's; as the encoder's if not given"
)
flags.DEFINE_integer("kernel", DEFAULT.kernel, "rows and columns of their kernels")
flags.DEFINE_enum(
    "decoder_channels",
    None,
    learned_config.DECODER_CHANNELS,
    "decode feature channels together or apart; joint for mlp, independent for conv",
)
flags.DEFINE_bool(
    "nonnegative",
    DEFAULT.nonnegative,
    "let a systematic decoder end in a ReLU, for features that do",
)
flags.DEFINE_enum(
    "sums",
    DEFAULT.sums,
    list(sums.SUMS),
    "of the pieces, that a systematic code's parity pieces are at first",
)
flags.DEFINE_enum(
    "draws",
    DEFAULT.draws,
    erasures.DRAWS,
    "of erasure patterns in training: counts of losses alike, or patterns alike",
)
flags.DEFINE_list(
    "pattern_weights", [], "how many times as often patterns are drawn, as 0+4:8,1:0.5"
)
flags.DEFINE_enum(
    "code_augmentation",
    DEFAULT.code_augmentation,
    list(augmentation.AUGMENTATIONS),
    "of the images that codes are trained on",
)
flags.DEFINE_float(
    "distillation",
    DEFAULT.distillation,
    "weight of the error of what the head makes of the features",
)
flags.DEFINE_float(
    "supervision",
    DEFAULT.supervision,
    "weight of the cross-entropy of the answers with the labels, in a code's training",
)
flags.DEFINE_float("base_epochs", DEFAULT.base_epochs, "epochs of the base model")
flags.DEFINE_integer("base_batch_size", None, "batch_size if not given")
flags.DEFINE_float("base_learning_rate", None, "learning_rate if not given")
flags.DEFINE_enum(
    "base_schedule",
    DEFAULT.base_schedule,
    ranges.SCHEDULES,
    "learning rate of the base model",
)
flags.DEFINE_enum(
    "augmentation",
    DEFAULT.augmentation,
    list(augmentation.AUGMENTATIONS),
    "of the base model's training images",
)
flags.DEFINE_float(
    "label_smoothing", DEFAULT.label_smoothing, "of the base model's labels"
)
flags.DEFINE_float("epochs", DEFAULT.epochs, "epochs of the code")
flags.DEFINE_integer(
    "train_images", None, "that the code learns from; all of the training split's"
)
flags.DEFINE_integer("batch_size", DEFAULT.batch_size, "examples per step")
flags.DEFINE_float("learning_rate", DEFAULT.learning_rate, "of Adam")
flags.DEFINE_float("weight_decay", DEFAULT.weight_decay, "L2 factor")
flags.DEFINE_enum(
    "precision",
    DEFAULT.precision,
    code_config.PRECISIONS,
    "that encoder, F_Conv and decoder compute in",
)


def config_from_flags() -> config.Config:
    """Returns the configuration that the flags describe.

    Raises:
      ValueError: a value is out of range.
    """
    values = {name: flags.FLAGS[name].value for name in DEFAULT.__dict__}
    values["baselines"] = tuple(values["baselines"])
    for name in ("dilations", "decoder_dilations"):
        if values[name] is not None:
            values[name] = integers(name, values[name])
    values["pattern_weights"] = tuple(map(pattern_weight, values["pattern_weights"]))
    if values["stages"] is not None:
        stages = [stage.partition("-") for stage in values["stages"]]
        values["stages"] = tuple(
            integers("stages", [first, last or first]) for first, _, last in stages
        )
    if values["grid"] is not None:
        values["grid"] = integers("grid", values["grid"].split("x"))
    return config.Config(**values)


def pattern_weight(text: str) -> tuple[erasures.Pattern, float]:
    """Lost results and their weight, of `0+4:8`.

    Raises:
      ValueError: it is not of that form.
    """
    lost, _, weight = text.partition(":")
    pattern = integers("pattern_weights", lost.split("+"))
    try:
        return pattern, float(weight)
    except ValueError:
        raise ValueError(
            f"pattern_weights: {text!r} given, as 0+4:8 accepted"
        ) from None
