def kept(x, ratio):
    """Height and width of a feature map of which `ratio` is kept of each side."""
    # While tracing, sides are tensors, which have no `round`.
    return [max(1, round(int(side) * ratio)) for side in x.shape[2:]]


def exporting():
    """Whether `torch.onnx.export` or `torch.export` is at work.

    Neither of ONNX's exporters knows all of adaptive pooling, so that it is then put together
    from operators that they do know.
    """
    # Older versions of PyTorch have no is_exporting.
    is_exporting = getattr(torch.compiler, "is_exporting", torch.onnx.is_in_onnx_export)
    return torch.onnx.is_in_onnx_export() or is_exporting()


def windows(inputs, outputs):
    """The inputs that each output of adaptive pooling covers along a side: first, end."""
    return [(i * inputs // outputs, ((i + 1) * inputs - 1) // outputs + 1) for i in range(outputs)]


def average_pool(x, size):
    """Adaptive average pooling: while exporting, a product with a matrix for each side."""
    if not exporting():
        return F.adaptive_avg_pool2d(x, size)
    rows, columns = (
        x.new_tensor(
            [[(a <= i < b) / (b - a) for i in range(side)] for a, b in windows(side, outputs)]
        )
        for side, outputs in zip(map(int, x.shape[2:]), size)
    )
    # OpenVINO computes the other order wrongly where a batch norm follows.
    return torch.matmul(torch.matmul(rows, x), columns.t())


def max_pool(x, size):
    """Adaptive max pooling: while exporting, the largest of the rows of each window, then columns."""
    if not exporting():
        return F.adaptive_max_pool2d(x, size)
    for axis, outputs in zip((2, 3), size):
        spans = windows(int(x.shape[axis]), outputs)
        y = None
        for step in range(max(b - a for a, b in spans)):
            places = torch.tensor([min(a + step, b - 1) for a, b in spans], device=x.device)
            part = x.index_select(axis, places)
            y = part if y is None else torch.maximum(y, part)
        x = y
    return x


class SDPoint(nn.Module):
    """A downsampling point: shrinks the feature map while it has a ratio."""

    def __init__(self, point):
        super().__init__()
        self.point, self.ratio = str(point), None

    def forward(self, x):
        return x if self.ratio is None else average_pool(x, kept(x, self.ratio))


class StemPool(nn.MaxPool2d):
    """The stem's max pool, whose place an adaptive one takes while it has a ratio."""

    point, ratio = "stem", None

    def forward(self, x):
        full = super().forward(x)
        return full if self.ratio is None else max_pool(x, kept(full, self.ratio))


class Norm(nn.BatchNorm2d):
    """Batch norm that has statistics of its own for each instance whose point lies before it.

    While training it uses each batch's own statistics and keeps none; `calibrate` does. Scales and
    shifts of an instance's own, if the network was tuned, are used except while training.
    """

    def __init__(self, channels, eps=1e-5):
        super().__init__(channels, eps, momentum=None)
        self.instance, self.rows, self.tuned = "full", {}, False

    def add(self, instances, tuned):
        self.rows = {instance: row for row, instance in enumerate(instances)}
        self.tuned = tuned
        if not instances:
            return
        shape = len(instances), self.num_features
        self.register_buffer("instance_mean", torch.zeros(shape))
        self.register_buffer("instance_var", torch.ones(shape))
        if tuned:
            self.register_buffer("instance_weight", torch.ones(shape))
            self.register_buffer("instance_bias", torch.zeros(shape))

    def forward(self, x):
        mean, var = self.running_mean, self.running_var
        weights = self.weight, self.bias
        row = self.rows.get(self.instance)
        if row is not None:
            mean, var = self.instance_mean[row], self.instance_var[row]
        if self.training and self.momentum is None:
            mean = var = None
        elif row is not None and self.tuned:
            weights = self.instance_weight[row], self.instance_bias[row]
        return F.batch_norm(x, mean, var, *weights, self.training, self.momentum or 0.0, self.eps)


class Classifier(nn.Linear):
    """The classifier of a network that was tuned: instances have biases of their own.

    They are used except while training.
    """

    instance, rows = "full", {}

    def add(self, instances, tuned):
        self.rows = {instance: row for row, instance in enumerate(instances)}
        if instances and tuned and self.bias is not None:
            self.register_buffer("instance_bias", torch.zeros(len(instances), self.out_features))

    def forward(self, x):
        row = None if self.training else self.rows.get(self.instance)
        bias = self.bias if row is None or self.bias is None else self.instance_bias[row]
        return F.linear(x, self.weight, bias)


class Adjustable(nn.Module):
    """A network whose cost is chosen by `use`."""

    def arrange(self, instances, tuned=False):
        """Gives each batch norm its rows; modules are registered in the order of the data."""
        self.instances = ["full", *instances]
        self.points, behind = [], []
        for module in self.modules():
            if isinstance(module, (SDPoint, StemPool)):
                self.points.append(module)
                behind += [name for name in instances if name.split("@")[0] == module.point]
            elif isinstance(module, (Norm, Classifier)):
                module.add(behind, tuned)

    def use(self, instance):
        """Switches to an instance: "full", or "3@0.5" for half of each side at point 3."""
        point, _, ratio = instance.partition("@")
        if point != "full" and point not in [place.point for place in self.points]:
            raise ValueError(f"there is no point {point}")
        if not self.training and instance not in self.instances:
            raise ValueError(f"there are no statistics of {instance}: calibrate it")
        for place in self.points:
            place.ratio = float(ratio) if place.point == point else None
        for module in self.modules():
            if isinstance(module, (Norm, Classifier)):
                module.instance = instance
        return self

    def draw(self, ratios=(0.5, 0.75)):
        """Switches as stochastic downsampling trains: call it before each step."""
        point = random.choice([None, *(place.point for place in self.points)])
        return self.use("full" if point is None else f"{point}@{random.choice(ratios)}")

    @torch.no_grad()
    def calibrate(self, batches):
        """Takes all statistics anew: the plain average over some thousand training images.

        `batches` is a list or a loader, as each instance goes through it once.
        """
        norms = [module for module in self.modules() if isinstance(module, Norm)]
        self.train()
        for instance in self.instances:
            self.use(instance)
            for seen, images in enumerate(batches, 1):
                for norm in norms:
                    norm.momentum = 1 / seen
                self(images)
        for norm in norms:
            norm.momentum = None
        return self.eval().use("full")
