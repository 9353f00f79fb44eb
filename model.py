"""The model: train it, test it, verify with it.

    python model.py --train True                     features in --train_path → a model in --model_path
    python model.py --train True --restore True      go on where a run stopped
    python model.py                                  test on --test_path (test.py also draws and writes the report)
    python model.py --verify True --enroll_path A --verify_path B       are A and B the same person?
    python model.py --export DIR                     the model without what only training needs
    python model.py --export DIR --format onnx       its encoder for other programs

Training and export load TensorFlow; all else runs the exported encoder (embedding.py).
"""
import contextlib
import functools
import math
import os
import pathlib
import shlex
import sys
import time
from dataclasses import dataclass

import numpy as np

import audio
import common
import configuration
import embedding
import features
import measures
import protocol
import utils
import verification
from common import InputError, tf, write_json
from configuration import flags_stored

CLIP_NORM = 3.0              # global norm of the gradients
CALIBRATION_SPEAKERS = 10    # for validation, at least, of a calibration that knows conditions
DRAWS = 6                    # of enrolments that validate: one alone prefers a checkpoint by chance
LOG_EVERY = 100              # iterations per row of history.csv


# ---- training ---------------------------------------------------------------------------------------------------

def train(config):
    """Train an encoder on the features in config.train_path, into the model folder config.model_path.

    Ctrl-C saves a checkpoint, says so, and is raised again. Returns whether this process wrote the model: of several
    workers, the chief alone does.

    Raises
    ------
    InputError
        If the folder holds a model and --restore is not True, another run trains there, the features do not fit,
        there are fewer than N speakers, or the loss is no longer finite.
    """
    if not config.restore and embedding.holds_model(config.model_path):
        raise InputError(f"--model_path is {config.model_path}: there is a model already; go on with --restore True, "
                         "or name another folder")
    import encoder as networks

    networks.check_folder("model_path", config.model_path)
    stored = adopt_base(config)
    strategy, chief = networks.choose_strategy(config)
    training, validation, notes = training_speakers(config, stored)
    with strategy.scope():
        with utils.graph_errors_named(config):
            encoder = first_encoder(config, stored, training)
        teachers = [networks.load_encoder(folder)[0] for folder in teacher_folders(config)]
    with utils.only_run(config.model_path) if chief else contextlib.nullcontext():
        trainer = Trainer(config, encoder, training, validation, teachers=teachers, strategy=strategy, chief=chief)
        if config.restore and "iteration" in config.given and config.iteration < trainer.iteration:
            raise InputError(f"--iteration is {config.iteration}: {config.model_path} has taken {trainer.iteration}; "
                             "give a higher one to go on")
        notes += (membership_notes(config, stored, training) + pool_notes(trainer.pools, training)
                  + utils.course_notes(config, stored, training))
        if chief:
            for name in () if config.restore else ("thresholds.json", "encoder.tflite"):    # of a run that was deleted
                pathlib.Path(config.model_path, name).unlink(missing_ok=True)
            write_config(config, stored, encoder, training=training, validation=validation, notes=notes)
        print(*training_summary(encoder, config, training, validation), *notes, sep="\n")
        with utils.graph_errors_named(config):
            trainer.run()
    return chief


def first_encoder(config, stored, training):
    """Return the Encoder that a run begins with; see `train` for `stored`."""
    import encoder as networks

    encoder = networks.load_encoder(config.init_from)[0] if config.init_from else networks.build_encoder(config)
    began_with = stored["flags"].get("init_from") if config.restore else config.init_from
    encoder.by_batch = not began_with                       # it goes on with what it knows, also after a stop
    if config.loss == "trials" and config.init_from and stored.get("flags", {}).get("loss", "softmax") == "softmax":
        encoder.b.assign(-tf.abs(encoder.w) / 2)            # as in a new encoder: eq. 6 gives b no gradient
    if not (config.restore or config.init_from) or differs_in_features(config, stored):
        mean, deviation = utils.channel_statistics(training, np.random.default_rng(config.seed))
        encoder.mean.assign(mean)
        encoder.deviation.assign(deviation)
    return encoder


def training_speakers(config, stored):
    """Return the training and the validation speakers of config.train_path, and notes on their features.

    `stored` is what the model that the run goes on from or starts with holds; see `train` for what is raised.
    """
    speakers, settings = features.load_features(config.train_path)
    features.adopt_settings(config, stored.get("kept", {}), settings, config.train_path)
    configuration.check_relations(config)
    notes = features.check_features(speakers, settings, features.feature_settings(config), config.train_path)
    for folder, teacher in stored.get("teachers", {}).items():
        if differs_in_features(config, teacher):
            raise InputError(f"--teacher is {folder}: it listens to other features than {config.train_path} holds")
    speakers, more = features.protocol_speakers(speakers, config.tdsv)
    kept = stored if config.restore else (embedding.load_config(config.valid_as, "valid_as") if config.valid_as else {})
    if config.valid_as and not kept.get("validation"):
        raise InputError(f"--valid_as is {config.valid_as}: that model has no validation speakers; leave it out")
    training, validation = utils.split_validation(
        speakers, config.utterance_number, ratio=config.valid_ratio, rng=np.random.default_rng(config.seed),
        names=kept.get("validation"), seen=stored.get("training", ()))
    if len(training) < config.speaker_number:
        raise InputError(f"--speaker_number is {config.speaker_number}: {config.train_path} has {len(training)} "
                         f"training speakers, beside {len(validation)} that validate; lower it or --valid_ratio")
    return training, validation, notes + more


def adopt_base(config):
    """Take the flags of the model that the run goes on from or starts with; return what it stores, else {}."""
    import encoder as networks

    base = config.model_path if config.restore else config.init_from
    if not base:
        return with_teachers(config, {})
    stored = embedding.load_config(base, "model_path" if config.restore else "init_from")
    if config.restore and "ancestor" in stored:
        raise InputError(f"--model_path is {base}: an ancestor's run cannot go on; start one with --init_from {base}")
    if config.restore and not {"commands", "normalisation", "validation"} <= stored.keys():
        raise InputError(f"{base}/config.json is damaged, this run cannot go on; start one with --init_from {base}")
    chosen = embedding.checkpoint_path(base, embedding.choose_checkpoint(base))
    if config.restore and networks.is_export(chosen):
        raise InputError(f"--model_path is {base}: an export has not what only training needs; start a run with "
                         f"--init_from {base}")
    kept = flags_stored("features", "model")
    if config.restore:
        kept += flags_stored("run") + tuple(name for name in flags_stored("progress") if name not in config.given)
    else:           # a run may begin on features that are younger than its model, or take another part of what is said
        kept = [name for name in kept
                if not configuration.flags()[name].optional and not name.startswith(("tdsv", "top_db"))]
    flags = {name: stored["flags"][name] for name in kept if name in stored["flags"]}
    if "ancestor" in stored:
        flags |= networks.ancestor_size(chosen)
    configuration.adopt(config, flags, base)
    return with_teachers(config, stored | {"kept": flags})


def teacher_folders(config):
    """Return the model folders that --teacher names."""
    return [folder for folder in (config.teacher or "").split(",") if folder]


def with_teachers(config, stored):
    """Return what the base of a run stores, and its teachers, on whose training speakers no run may validate either."""
    teachers = {folder: embedding.load_config(folder, "teacher") for folder in teacher_folders(config)}
    known = {name for model in (stored, *teachers.values()) for name in model.get("training", ())}
    return stored | {"teachers": teachers, "training": sorted(known)} if teachers else stored


def differs_in_features(config, stored):
    """Tell whether a run begins with the weights of a model that was trained on other frames, but for ancestors'.

    Which are speech and make a segment, and of which texts, does not count.
    """
    if config.restore or "ancestor" in stored:
        return False
    return any(value != stored["flags"].get(name) for name, value in features.feature_settings(config).items()
               if not name.startswith(("tdsv", "tisv", "top_db")))


def membership_notes(config, stored, training):
    """Return a note where a run goes on with other speakers or recordings than it had when it stopped."""
    known = set(stored.get("speakers", ())) if config.restore else set()
    changed = known and known ^ set(features.people(training))
    if changed:
        return [f"{len(changed)} training speakers came or went since this run began: its batches are not those of a "
                "run that never stopped"]
    heard = features.count_recordings(training)
    if config.restore and stored.get("recordings", heard) != heard:
        return ["utterances or copies came or went since this run stopped: its batches and validation losses are not "
                "those of before"]
    return []


def pool_notes(pools, training):
    """Return a note where training speakers are in none of the pools that batches are drawn from."""
    left = len(training) - sum(len(places) for _, places, _ in pools)
    return [f"{left} of {len(training)} speakers do not train: their text, or all small corpora together, have fewer "
            "than --speaker_number"] if left else []


def write_config(config, stored, encoder, *, training, validation, notes):
    """Write config.json, which tells all that rebuilds the encoder and its features, and how it came about.

    "speakers" are those of this run's batches; "training" has those of the base that it started from, too.
    """
    names = features.people(training)
    normalisation = {"mean": encoder.mean.numpy().tolist(), "deviation": encoder.deviation.numpy().tolist()}
    commands = stored["commands"] if config.restore else []
    write_json(os.path.join(config.model_path, "config.json"), {
        "flags": {name: value for name, value in vars(config).items() if name != "given"}
        | ({"init_from": stored["flags"].get("init_from")} if config.restore else {}), "notes": notes,
        "commands": [*commands, shlex.join(sys.argv)], "versions": common.versions(),
        "normalisation": stored["normalisation"] if config.restore else normalisation,
        "speakers": names, "training": sorted({*names, *stored.get("training", ())}),
        "validation": features.people(validation), "recordings": features.count_recordings(training)})


def training_summary(encoder, config, training, validation):
    """Return the lines that say what is about to be trained on what."""
    from encoder import trainable_numbers

    utterances = sum(len(speaker.voiced) for speaker in training)
    size = f"{config.num_layer} x ({config.hidden}, {config.proj})"
    people, validating = len(features.people(training)), len(features.people(validation))
    lines = [f"encoder: {size}, {trainable_numbers(encoder):,} trainable numbers",
             f"training: {people} speakers, {utterances} utterances; validation: {validating} speakers"]
    if not validation:
        strange = ", which --init_from or --teacher was not trained on" if config.init_from or config.teacher else ""
        lines.append(f"validation needs 2 speakers with more than {config.utterance_number} utterances{strange}; "
                     f"--valid_ratio {config.valid_ratio} gives fewer: no EER is measured, --patience never ends, no "
                     "threshold is stored; python test.py --store_threshold True measures one on test speakers")
    elif any(utterance.copies for speaker in validation for utterance in speaker.voiced) and (
            validating < CALIBRATION_SPEAKERS):
        lines.append(f"{validating} validation speakers are too few for thresholds that know conditions, "
                     f"{CALIBRATION_SPEAKERS} would do: there will be one threshold for all")
    return lines


def build_step(encoder, optimizer, config, teachers=()):
    """Return a compiled training step, which updates the weights by --loss and, with teachers, by what they find.

    It takes frames (N * M, T, 40) and a number, and returns the loss and that number. In the scope of a tf.distribute
    strategy each replica has frames of its own: their gradients are averaged, then clipped, then scaled, and loss and
    number are means too.
    """
    variables, scales = encoder.trainable_variables, encoder.gradient_scales()
    strategy, n, m = tf.distribute.get_strategy(), config.speaker_number, config.utterance_number
    optimizer.build(variables)

    def replica_step(frames, number):
        taught = [teacher.forward(frames) for teacher in teachers]
        with tf.GradientTape() as tape:
            embedded = encoder.forward(frames, training=encoder.by_batch)
            value = utils.batch_loss(tf.reshape(embedded, (n, m, -1)), encoder.w, encoder.b, config.loss)
            value += utils.teacher_loss(embedded, taught) if teachers else 0.0
        return tf.distribute.get_replica_context().all_reduce(
            "mean", [value, tf.identity(number), *tape.gradient(value, variables)])

    # Several replicas of one process come as a value of another kind; workers must not trace at different times.
    several = isinstance(strategy, tf.distribute.MirroredStrategy) and strategy.num_replicas_in_sync > 1
    signature = None if several else [tf.TensorSpec((n * m, None, audio.N_MELS)), tf.TensorSpec(())]

    @tf.function(input_signature=signature, reduce_retracing=True)
    def step(frames, number):
        value, number, *gradients = [strategy.experimental_local_results(mean)[0]
                                     for mean in strategy.run(replica_step, args=(frames, number))]
        gradients, _ = tf.clip_by_global_norm(gradients, CLIP_NORM)
        # Not within a replica: there, Keras would sum the gradients over the replicas once more.
        optimizer.apply([scale * gradient for scale, gradient in zip(scales, gradients, strict=True)], variables)
        return value, number

    return step


@dataclass(frozen=True)
class Validation:
    """What the validation speakers gave. The loss is that of eq. 6, with --loss trials the min Cllr.

    It is the mean of originals and copies, and of several draws of enrolments; the rest is of those of all tests.
    """

    evaluation: protocol.Evaluation
    loss: float
    copies_eer: float | None            # None where there are no copies


class Trainer:
    """One training run: its loop, its checkpoints, its history. The optimizer counts the iterations.

    Of several workers, only the chief validates and writes.
    """

    def __init__(self, config, encoder, training, validation, *, teachers=(), strategy=None, chief=True):
        self.config, self.encoder, self.training, self.validation = config, encoder, training, validation
        self.strategy, self.chief, self.sources = strategy or tf.distribute.get_strategy(), chief, {}
        self.folder = pathlib.Path(config.model_path)
        self.pools = utils.speaker_pools(training, config.speaker_number, config.utterance_number, weigh=config.weigh,
                                         one_corpus=config.one_corpus)
        with self.strategy.scope():
            self.optimizer = utils.build_optimizer(config)
            self.step = build_step(encoder, self.optimizer, config, teachers)
        self.loss_sum = tf.Variable(0.0, dtype=tf.float64)          # since the last row of the history
        self.checkpoint = tf.train.Checkpoint(encoder=encoder, optimizer=self.optimizer, loss_sum=self.loss_sum)
        if config.restore:
            from encoder import restore_checkpoint

            restore_checkpoint(self.checkpoint, embedding.checkpoint_path(self.folder, self.numbers()[-1]))
        self.history = utils.History(self.folder / "history.csv", self.iteration, min(LOG_EVERY, config.valid_every))
        if self.history.begun:              # the row where its sum begins was deleted
            self.loss_sum.assign(0.0)
        self.writer = tf.summary.create_file_writer(str(self.folder / "logs")) if chief else None
        self.clock = (time.perf_counter(), self.iteration)

    @property
    def iteration(self):
        """The number of steps taken."""
        return int(self.optimizer.iterations.numpy())

    def batches(self, replica):
        """Return the batches of a replica from this iteration on: of R replicas every R-th."""
        config, replicas = self.config, self.strategy.num_replicas_in_sync
        numbers = range(self.iteration * replicas + replica, config.iteration * replicas, replicas)
        shape = (config.speaker_number * config.utterance_number, None, audio.N_MELS)
        return tf.data.Dataset.from_generator(lambda: map(self.draw, numbers),
                                              output_signature=tf.TensorSpec(shape)).prefetch(4)

    def next_batch(self):
        """Return the next batch of each replica of this process."""
        def of_replica(context):
            number = context.replica_id_in_sync_group
            if number not in self.sources:
                self.sources[number] = iter(self.batches(number))
            return next(self.sources[number])

        batches = self.strategy.experimental_distribute_values_from_function(of_replica)
        here = self.strategy.experimental_local_results(batches)
        return here[0] if len(here) == 1 else batches

    def draw(self, k):
        """Return batch k (N * M, T, F), drawn and varied with default_rng([seed, k])."""
        config, rng = self.config, np.random.default_rng([self.config.seed, k])
        batch = utils.random_batch(self.training, config.speaker_number, config.utterance_number, rng=rng,
                                   crop=(config.crop_min, config.crop_max), pools=self.pools,
                                   copy_share=config.copy_share, speed=config.speed, one_speed=config.one_speed,
                                   bend=config.bend, centres=audio.mel_centres(config.sr))
        if config.equalize:
            utils.equalize(batch, config.equalize, rng)
        if config.mask_channels:
            utils.mask_bands(batch, config.mask_channels, self.encoder.mean.numpy(), rng)
        return batch

    def run(self):
        """Train to the last iteration, to --patience or --max_minutes, or to Ctrl-C, heeded between two iterations.

        One worker that stops stops all: each tells the others with every step.
        """
        config, started, stopping, stalled = self.config, time.monotonic(), 0.0, False
        self.save_again()
        with (utils.graceful_interrupt() as interrupted,
              common.progress(total=config.iteration, initial=self.iteration, unit="step",
                              disable=not self.chief) as bar):
            while self.iteration < config.iteration and not stopping:
                over = config.max_minutes and time.monotonic() - started > 60 * config.max_minutes
                loss, stopping = map(float, self.step(self.next_batch(), float(interrupted() or stalled or over)))
                self.check_loss(loss)
                self.loss_sum.assign_add(loss)
                bar.update()
                if self.iteration % config.valid_every == 0 or self.iteration == config.iteration or (
                        stopping and not interrupted()):
                    validation = self.validate()
                    self.log(bar, validation)
                    self.save(validation)
                    stalled = self.chief and bool(config.patience) and self.history.stalled() >= config.patience
                elif self.iteration % LOG_EVERY == 0:
                    self.log(bar)
        if self.iteration < config.iteration:
            line = (f"stopped at iteration {self.iteration} of {config.iteration}, which is saved; go on with "
                    f"--restore True --model_path {self.folder}" + f" --patience {2 * config.patience}" * stalled)
            if interrupted():
                self.save()
                raise KeyboardInterrupt(line)
            print(line)

    def check_loss(self, loss, name="loss"):
        """Raise InputError where a loss is not finite: features are not, or steps are too large."""
        if math.isfinite(loss):
            return
        remedies = [f"{speaker.path} holds numbers that are not finite; preprocess this speaker again, then go on with "
                    "--restore True from the last checkpoint"
                    for speaker in self.training if not features.is_usable(speaker.load())]
        remedies.append(f"lower --lr, which is {self.config.lr}, in a new run")
        raise InputError(f"the {name} is {loss} at iteration {self.iteration}: {remedies[0]}")

    def numbers(self):
        """Return the numbers of the run's checkpoints, ascending."""
        return embedding.checkpoint_numbers(self.folder)

    def validate(self):
        """Return the Validation of the validation speakers, None if there are none."""
        if not self.validation or not self.chief:
            return None
        self.check_loss(float(sum(map(tf.reduce_sum, self.encoder.trainable_variables))), "sum of the weights")
        try:
            d_vectors = {speaker.name: embedding.embed_speaker(self.encoder, speaker) for speaker in self.validation}
        except InputError as error:             # of features that broke meanwhile
            raise utils.stopped_run(self.config, error) from error
        evaluations = [protocol.evaluate(lambda speaker: d_vectors[speaker.name], speakers,
                                         self.config.utterance_number, within_corpora=True)
                       for speakers in utils.redraw_enrolments(self.validation, DRAWS)]
        copies = [[evaluation.under(probes) for probes in evaluation.copies] for evaluation in evaluations]
        losses = [[one.loss_of(self.config.loss) for draw in kind for one in draw] for kind in ([evaluations], copies)]
        loss = float(np.mean([np.mean(part) for part in losses if part]))
        self.check_loss(loss, "validation loss")
        copies_eer = float(np.mean([copy.eer_of_copies() for copy in copies[0]])) if copies[0] else None
        return Validation(evaluations[0], loss, copies_eer)

    def save(self, validation=None):
        """Write the checkpoint of this iteration and, if its validation loss is the least, its export and thresholds.

        That best one and the last one are kept.
        """
        if not self.chief:
            return
        from encoder import write_checkpoint

        write_checkpoint(self.checkpoint, self.folder, self.iteration)
        best = (embedding.read_thresholds(self.folder) or {}).get("best")
        if validation and (best is None or validation.loss <= best.get("valid_loss", math.inf)):
            best = {"model_num": self.iteration, "valid_loss": validation.loss, "valid_eer": validation.evaluation.eer}
            source = (f"{len(validation.evaluation.people)} validation speakers, {self.config.utterance_number} "
                      "enrolment utterances each")
            self.export()
            embedding.store_thresholds(self.folder, self.iteration, validation.evaluation, source, best=best,
                                       trials=self.calibration_trials(validation.evaluation))
        for number in set(self.numbers()) - {self.iteration, best and best["model_num"]}:
            for path in (self.folder / "Check_Point").glob(f"model.ckpt-{number}.*"):
                path.unlink()
        if not best and self.iteration == self.config.iteration:
            self.export()

    def save_again(self):
        """Validate a checkpoint again whose validation was the best, but which a killed run could not save as that."""
        rows = [row for row in self.history.rows[-1:] if int(row["iteration"]) == self.iteration and row["valid_loss"]]
        best = (embedding.read_thresholds(self.folder) or {}).get("best") or {"model_num": None}
        if rows and best["model_num"] != self.iteration and (
                float(rows[0]["valid_loss"]) <= best.get("valid_loss", math.inf)):
            self.save(self.validate())

    def calibration_trials(self, evaluation):
        """Return the trials of a calibration that knows conditions; None without copies or of few speakers."""
        if not evaluation.copies or len(evaluation.people) < CALIBRATION_SPEAKERS:
            return None
        embed_rows = functools.partial(embedding.embed_rows, self.encoder)
        return protocol.calibration_trials(evaluation, embed_rows, self.validation, self.config)

    def export(self):
        """Write encoder.tflite, which listeners run, from the weights as they are now."""
        from encoder import export

        export(self.encoder, self.folder / "encoder.tflite", self.folder, self.iteration)

    def log(self, bar, validation=None):
        """Add a row to history.csv, TensorBoard and the progress bar."""
        if not self.chief:
            return
        config, now, last = self.config, time.perf_counter(), self.history.last
        elapsed, steps = now - self.clock[0], self.iteration - self.clock[1]
        row = {"iteration": self.iteration, "loss": float(self.loss_sum) / (self.iteration - int(last["iteration"])),
               "learning_rate": float(self.optimizer.learning_rate),
               "utterances_per_second": steps * config.speaker_number * config.utterance_number / elapsed,
               "seconds": float(last["seconds"]) + elapsed, "valid_eer": validation and validation.evaluation.eer,
               "valid_loss": validation and validation.loss, "valid_copies_eer": validation and validation.copies_eer}
        self.history.add(row)
        self.loss_sum.assign(0.0)
        self.clock = now, self.iteration
        with self.writer.as_default(step=self.iteration):
            for name, value in row.items():
                if value is not None and name != "iteration":
                    tf.summary.scalar(name, value)
            self.writer.flush()
        bar.set_postfix_str(f"loss {row['loss']:.3f}, lr {row['learning_rate']:.2g}, "
                            f"{row['utterances_per_second']:.0f} utterances/s")
        if validation:
            copies = "" if validation.copies_eer is None else f", {validation.copies_eer:.4f} on copies"
            bar.write(f"iteration {self.iteration}: loss {row['loss']:.3f}, on validation speakers "
                      f"EER {row['valid_eer']:.4f}{copies}, validation loss {row['valid_loss']:.4f}")


# ---- test, verify -----------------------------------------------------------------------------------------------

def test(config):
    """Evaluate the model in config.model_path on the speakers of config.test_path, or on the audio of --raw_path.

    The feature flags become those of the model. Returns a protocol.Evaluation, raises what `protocol.evaluate` does.
    """
    encoder, stored = embedding.open_model(config)
    speakers, notes = protocol.speakers_to_test(config, stored)
    embed_speaker = functools.partial(embedding.embed_speaker, encoder)
    evaluation = protocol.evaluate(embed_speaker, speakers, config.utterance_number)
    evaluation.notes.extend(embedding.model_notes(config, stored) + notes)
    return evaluation


def work(config):
    """Train, verify, export or test, as the flags say."""
    if config.export:
        import encoder as networks

        return networks.export_format(config) if config.format else networks.export_model(config)
    if config.verify:
        embedding.choose_model(config)
        verifier = verification.Verifier(config)
        return verification.print_verdicts(verifier, verification.Enrolments(verifier).voices())
    if config.train:
        if train(config):
            number = embedding.choose_checkpoint(config.model_path)
            points = (embedding.load_thresholds(config.model_path, number) or {"points": {}})["points"]
            print(f"done: checkpoint {number} in {config.model_path}; {measures.describe_points(points)}")
        return 0
    typed = [name for name, flag in configuration.flags().items() if flag.readers == "test" and name in config.given]
    if typed:
        raise InputError(f"--{typed[0]} serves python test.py, which evaluates in full: model.py prints its EER alone")
    evaluation = test(config)
    print(evaluation.describe())
    stored = embedding.load_thresholds(config.model_path, config.model_num)
    scored = evaluation.scored()
    print(measures.describe_rates(scored.scores, scored.labels, embedding.decide(stored, config, scored)))
    for note in evaluation.notes:
        print("note:", note)
    return 0


def main(argv=None):
    """Run the command line; return the exit code."""
    return configuration.run(work, argv, "model", __doc__)


if __name__ == "__main__":
    sys.exit(main())
