@@MODEL_HEAD@@

# ---- training ---------------------------------------------------------------------------------------------------

def train(config):
    """Train an encoder on the features in config.train_path, into the model folder config.model_path.

    Ctrl-C saves a checkpoint, says so, and is raised again.

    Raises
    ------
    InputError
        If the folder holds a model and --restore is not True, the features do not fit, there are fewer than N
        speakers, or the loss is no longer finite.
    """
    if not config.restore and checkpoint_numbers(config.model_path):
        raise InputError(f"--model_path is {config.model_path}: there is a model already; go on with --restore True, "
                         "or name another folder")
    stored = adopt_base(config)
    speakers, settings = utils.load_features(config.train_path)
    adopt_features(config, stored.get("flags", {}), settings, config.train_path)
    configuration.check_relations(config)
    notes = utils.check_features(speakers, settings, data_preprocess.feature_settings(config), config.train_path)
    training, validation = utils.split_validation(
        speakers, config.utterance_number, ratio=config.valid_ratio, rng=np.random.default_rng(config.seed),
        names=stored["validation"] if config.restore else None, seen=stored.get("training", ()))
    if len(training) < config.speaker_number:
        raise InputError(f"--speaker_number is {config.speaker_number}: {config.train_path} has {len(training)} "
                         "training speakers; lower it")
    encoder = load_encoder(config.init_from)[0] if config.init_from else build_encoder(config)
    if not stored:
        mean, deviation = utils.channel_statistics(training, np.random.default_rng(config.seed))
        encoder.mean.assign(mean)
        encoder.deviation.assign(deviation)
    trainer = Trainer(config, encoder, training, validation)
    if not config.restore:
        pathlib.Path(config.model_path, "thresholds.json").unlink(missing_ok=True)         # of a run that was deleted
    notes += membership_notes(config, stored, training)
    write_config(config, stored, encoder, training=training, validation=validation, notes=notes)
    for line in introduction(encoder, config, training, validation) + notes:
        print(line)
    try:
        trainer.run()
    except tf.errors.OpError as error:
        raise InputError(f"training stopped, go on with --restore True: {error.message.splitlines()[0]}") from error


def adopt_base(config):
    """Take the flags of the model that the run goes on from or starts with; return what it stores, else {}."""
    base = config.model_path if config.restore else config.init_from
    if not base:
        return {}
    stored = load_config(base)
    if config.restore and "ancestor" in stored:
        raise InputError(f"--model_path is {base}: an ancestor's run cannot go on; start one with --init_from {base}")
    choose_checkpoint(base)
    kept = FEATURE_FLAGS + MODEL_FLAGS
    if config.restore:
        kept = RUN_FLAGS + tuple(name for name in FREE_FLAGS if name not in config.given)
    configuration.adopt(config, {name: stored["flags"][name] for name in kept if name in stored["flags"]}, base)
    return stored


def membership_notes(config, stored, training):
    """Return a note where a run goes on with other speakers than it began with."""
    known = set(stored.get("speakers", ())) if config.restore else set()
    changed = known ^ {speaker.name for speaker in training}
    if not known or not changed:
        return []
    return [f"{len(changed)} training speakers came or went since this run began: its batches are not those of a run "
            "that never stopped"]


def write_config(config, stored, encoder, *, training, validation, notes):
    """Write config.json, which tells all that rebuilds the encoder and its features, and how it came about.

    "speakers" are those of this run's batches; "training" has those of the base that it started from, too.
    """
    names = [speaker.name for speaker in training]
    normalisation = {"mean": encoder.mean.numpy().tolist(), "deviation": encoder.deviation.numpy().tolist()}
    commands = stored["commands"] if config.restore else []
    write_json(os.path.join(config.model_path, "config.json"), {
        "flags": {name: value for name, value in vars(config).items() if name != "given"}
        | ({"init_from": stored["flags"].get("init_from")} if config.restore else {}), "notes": notes,
        "commands": [*commands, shlex.join(sys.argv)], "versions": versions(),
        "normalisation": stored["normalisation"] if config.restore else normalisation,
        "speakers": names, "training": sorted({*names, *stored.get("training", ())}),
        "validation": [speaker.name for speaker in validation]})


def introduction(encoder, config, training, validation):
    """Return the lines that say what is about to be trained on what."""
    utterances = sum(len(speaker.voiced) for speaker in training)
    size = f"{config.num_layer} x ({config.hidden}, {config.proj})"
    lines = [f"encoder: {size}, {trainable_numbers(encoder):,} trainable numbers",
             f"training: {len(training)} speakers, {utterances} utterances; validation: {len(validation)} speakers"]
    if not validation:
        strange = ", which --init_from was not trained on" if config.init_from else ""
        lines.append(f"validation needs 2 speakers with more than {config.utterance_number} utterances{strange}; "
                     f"--valid_ratio {config.valid_ratio} gives fewer: no EER is measured and no threshold stored; "
                     "python test.py --store_threshold True measures one on test speakers")
    return lines


def build_optimizer(config):
    """Return the Keras optimizer of --optim with the learning rate of --schedule."""
    keras = tf.keras.optimizers
    if config.schedule == "cosine":
        rate = keras.schedules.CosineDecay(config.lr, config.iteration)
    else:
        rate = keras.schedules.ExponentialDecay(config.lr, 10000, 0.5, staircase=True)
    if config.optim == "adam":
        return keras.Adam(rate, beta_1=config.beta1, beta_2=config.beta2)
    return {"sgd": keras.SGD, "rmsprop": keras.RMSprop}[config.optim](rate)


def build_step(encoder, optimizer, n, m, loss):
    """Return a compiled training step: frames (N * M, T, 40) → the loss of the batch; it updates the weights."""
    variables, scales = encoder.trainable_variables, encoder.gradient_scales()
    optimizer.build(variables)

    @tf.function(input_signature=[tf.TensorSpec((n * m, None, N_MELS))])
    def step(frames):
        with tf.GradientTape() as tape:
            embedded = tf.reshape(encoder(frames), (n, m, -1))
            value = utils.ge2e_loss(utils.similarity(embedded, encoder.w, encoder.b), loss)
        gradients, _ = tf.clip_by_global_norm(tape.gradient(value, variables), CLIP_NORM)
        optimizer.apply([scale * gradient for scale, gradient in zip(scales, gradients, strict=True)], variables)
        return value

    return step


class Trainer:
    """One training run: its loop, its checkpoints, its history. The optimizer counts the iterations."""

    def __init__(self, config, encoder, training, validation):
        self.config, self.encoder, self.training, self.validation = config, encoder, training, validation
        self.folder = pathlib.Path(config.model_path)
        self.optimizer = build_optimizer(config)
        self.step = build_step(encoder, self.optimizer, config.speaker_number, config.utterance_number, config.loss)
        self.loss_sum = tf.Variable(0.0, dtype=tf.float64)          # since the last row of the history
        self.checkpoint = tf.train.Checkpoint(encoder=encoder, optimizer=self.optimizer, loss_sum=self.loss_sum)
        if config.restore:
            restore(self.checkpoint, checkpoint_path(self.folder, checkpoint_numbers(self.folder)[-1]))
        self.history = utils.History(self.folder / "history.csv", self.iteration)
        self.writer = tf.summary.create_file_writer(str(self.folder / "logs"))
        self.clock = (time.perf_counter(), self.iteration)

    @property
    def iteration(self):
        """The number of steps taken."""
        return int(self.optimizer.iterations)

    def batches(self):
        """Return the batches from this iteration on."""
        config, first = self.config, self.iteration
        shape = (config.speaker_number * config.utterance_number, None, N_MELS)
        return tf.data.Dataset.from_generator(lambda: map(self.draw, range(first, config.iteration)),
                                              output_signature=tf.TensorSpec(shape)).prefetch(4)

    def draw(self, k):
        """Return batch k (N * M, T, F), drawn and varied with default_rng([seed, k])."""
        config, rng = self.config, np.random.default_rng([self.config.seed, k])
        batch = utils.random_batch(self.training, config.speaker_number, config.utterance_number, rng=rng,
                                   crop=(config.crop_min, config.crop_max), weigh=config.weigh, speed=config.speed,
                                   centres=data_preprocess.mel_centres(config.sr))
        if config.equalize:
            utils.equalize(batch, config.equalize, rng)
        if config.mask_channels:
            utils.mask_bands(batch, config.mask_channels, self.encoder.mean.numpy(), rng)
        return batch

    def run(self):
        """Train to the last iteration, or to Ctrl-C, which is heeded between two iterations."""
        config = self.config
        with (configuration.graceful_interrupt() as interrupted,
              configuration.progress(total=config.iteration, initial=self.iteration, unit="step") as bar):
            for frames in self.batches():
                loss = float(self.step(frames))
                if not math.isfinite(loss):
                    raise InputError(f"the loss is {loss} at iteration {self.iteration}: lower --lr, which is "
                                     f"{config.lr}, in a new run")
                self.loss_sum.assign_add(loss)
                bar.update()
                if self.iteration % config.valid_every == 0 or self.iteration == config.iteration:
                    evaluation = self.validate()
                    self.log(bar, evaluation)
                    self.save(evaluation)
                elif self.iteration % LOG_EVERY == 0:
                    self.log(bar)
                if interrupted():
                    break
        if self.iteration < config.iteration:
            self.save()
            raise KeyboardInterrupt(f"stopped at iteration {self.iteration} of {config.iteration}, which is saved; "
                                    f"go on with --restore True --model_path {self.folder}")

    def validate(self):
        """Return the Evaluation of the validation speakers, None if there are none."""
        return evaluate(self.encoder, self.validation, self.config.utterance_number) if self.validation else None

    def save(self, evaluation=None):
        """Write the checkpoint of this iteration and, if its validation loss is the least, its thresholds.

        That best one and the last one are kept.
        """
        (self.folder / "Check_Point").mkdir(parents=True, exist_ok=True)
        self.checkpoint.write(checkpoint_path(self.folder, self.iteration))
        best = (read_json(self.folder / "thresholds.json") or {}).get("best")
        loss = evaluation and evaluation.loss(float(self.encoder.w))
        if evaluation and (best is None or loss <= best["valid_loss"]):
            best = {"model_num": self.iteration, "valid_loss": loss, "valid_eer": evaluation.eer}
            source = (f"{len(self.validation)} validation speakers, {self.config.utterance_number} enrolment "
                      "utterances each")
            store_thresholds(self.folder, self.iteration, evaluation, source, best)
        for number in set(checkpoint_numbers(self.folder)) - {self.iteration, best and best["model_num"]}:
            for path in (self.folder / "Check_Point").glob(f"model.ckpt-{number}.*"):
                path.unlink()

    def log(self, bar, evaluation=None):
        """Add a row to history.csv, TensorBoard and the progress bar."""
        config, now, last = self.config, time.perf_counter(), self.history.last
        elapsed, steps = now - self.clock[0], self.iteration - self.clock[1]
        row = {"iteration": self.iteration, "loss": float(self.loss_sum) / (self.iteration - int(last["iteration"])),
               "learning_rate": float(self.optimizer.learning_rate),
               "utterances_per_second": steps * config.speaker_number * config.utterance_number / elapsed,
               "seconds": float(last["seconds"]) + elapsed,
               "valid_eer": evaluation and evaluation.eer,
               "valid_loss": evaluation and evaluation.loss(float(self.encoder.w))}
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
        if evaluation:
            bar.write(f"iteration {self.iteration}: loss {row['loss']:.3f}, on validation speakers "
                      f"EER {row['valid_eer']:.4f}, loss per probe {row['valid_loss']:.4f}")


# ---- export and test --------------------------------------------------------------------------------------------

def export(config):
    """Write the model in config.model_path to the folder config.export: weights, flags, thresholds, history.

    What only training needs, two thirds of a checkpoint, stays behind.
    """
    source, target = pathlib.Path(config.model_path), pathlib.Path(config.export)
    if "ancestor" in load_config(source):
        raise InputError(f"--model_path is {source}: an ancestor's model is used as it is; copy its folder")
    encoder, trained = load_encoder(source, config.model_num)
    if checkpoint_numbers(target):
        raise InputError(f"--export is {target}: there is a model already; name another folder")
    (target / "Check_Point").mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "history.csv"):
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)
    (target / "thresholds.json").unlink(missing_ok=True)
    measured = load_thresholds(source, trained.model_num)                  # those of another checkpoint stay behind
    if measured:
        best = measured["best"] if (measured["best"] or {}).get("model_num") == trained.model_num else None
        write_json(target / "thresholds.json", measured | {"best": best})
    tf.train.Checkpoint(encoder=encoder).write(checkpoint_path(target, trained.model_num))     # last: now it is whole
    print(f"checkpoint {trained.model_num} of {source} is in {target}")


def test(config):
    """Evaluate the model in config.model_path on the speakers of config.test_path, or on the audio of --raw_path.

    The feature flags become those of the model. Returns a utils.Evaluation; see `evaluate` for what is raised.
    """
    encoder, speakers, notes = open_test(config)
    evaluation = evaluate(encoder, speakers, config.utterance_number)
    evaluation.notes.extend(notes)
    return evaluation


def work(config):
    """Train, verify, export or test, as the flags say."""
    use_cores()
    if config.export:
        return export(config)
    if config.verify:
        configuration.choose_model(config)
        return print_verdicts(config)
    if config.train:
        train(config)
        number = choose_checkpoint(config.model_path)
        points = (load_thresholds(config.model_path, number) or {"points": {}})["points"]
        print(f"done: checkpoint {number} in {config.model_path}; {utils.describe_points(points)}")
    else:
        typed = [name for name in REPORT_FLAGS if name in config.given]
        if typed:
            raise InputError(f"--{typed[0]} serves python test.py, which evaluates in full: model.py prints its EER "
                             "alone")
        evaluation = test(config)
        print(evaluation.describe())
        stored = load_thresholds(config.model_path, config.model_num)
        print(utils.describe_rates(evaluation.scores, evaluation.labels, stored))
        for note in evaluation.notes:
            print("note:", note)
    return 0


def main(argv=None):
    """Run the command line; return the exit code."""
    return configuration.run(work, argv)


if __name__ == "__main__":
    sys.exit(main())
