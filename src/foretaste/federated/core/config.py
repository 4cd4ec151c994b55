"""What decides a federation, besides data and model: ``[federated]`` of a recipe."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from foretaste.metrics import parse_metric


class Part(BaseModel):
    """A part of the configuration. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LocalConfig(Part):
    """How one user trains in one round.

    Attributes:
        epochs: passes over the user's events; each is one step of the optimiser.
        optimizer: ``adam`` (a fresh state every round, as common in federated learning) or
            ``sgd``. One epoch of ``sgd`` without ``clip`` is FedSGD, and computed without any
            copy of the network.
        learning_rate: of the optimiser.
        weight_decay: decoupled, on matrices only.
        clip: norm to which a user's gradient is clipped at every step; 0 does not clip.
        windows: newest windows of ``max_length`` events that a user trains on.
        negatives: items drawn uniformly that a user's softmax is over, besides its own, anew every
            round; 0 means the whole catalog. The sum over drawn items is weighted by their odds,
            so that it estimates the whole catalog's without bias.
    """

    epochs: int = Field(default=5, ge=1)
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=5.0, ge=0)
    windows: int = Field(default=4, ge=1)
    negatives: int = Field(default=256, ge=0)


class ServerConfig(Part):
    """What the server makes of the mean update.

    Attributes:
        optimizer: ``average`` adds ``learning_rate`` times the mean update (FedAvg at 1.0);
            ``adam`` takes it for a gradient (FedAdam; Reddi et al., ICLR 2021).
        learning_rate: see above.
        momentum: of ``average``; the first beta of ``adam``.
        second: the second beta of ``adam``.
        epsilon: of ``adam``; large values keep rarely touched items from leaping.
    """

    optimizer: Literal["average", "adam"] = "average"
    learning_rate: float = Field(default=1.0, gt=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    second: float = Field(default=0.99, ge=0, lt=1)
    epsilon: float = Field(default=1e-4, gt=0)


class PrivacyConfig(Part):
    """Differential privacy of a user's whole update.

    Attributes:
        clip: norm to which every user's update of a round is clipped; 0 means no privacy.
        noise: standard deviation of the Gaussian noise, in units of ``clip``.
        where: ``server`` adds it once to the sum (users trust nodes and server to do so),
            ``client`` adds it to every user's update before it leaves.
        delta: of the (epsilon, delta) that is reported.
    """

    clip: float = Field(default=0.0, ge=0)
    noise: float = Field(default=0.0, ge=0)
    where: Literal["server", "client"] = "server"
    delta: float = Field(default=1e-5, gt=0, lt=1)

    @model_validator(mode="after")
    def _noise_needs_a_clip(self) -> Self:
        if self.noise and not self.clip:
            raise ValueError(
                f"noise = {self.noise} needs a clip above 0, or one user could weigh any amount"
            )
        return self


class RobustConfig(Part):
    """How the updates of nodes become one.

    Attributes:
        rule: ``mean``; ``median`` of every coordinate; ``trimmed`` mean of every coordinate;
            ``krum``, the update that is nearest to the others (Blanchard et al., 2017).
        share: of nodes that may be hostile: so much is cut off at either end (``trimmed``), and so
            many neighbours do not count (``krum``).
        keep: updates that ``krum`` averages (Multi-Krum above 1).
    """

    rule: Literal["mean", "median", "trimmed", "krum"] = "mean"
    share: float = Field(default=0.2, ge=0, lt=0.5)
    keep: int = Field(default=1, ge=1)


class AttackConfig(Part):
    """Hostile clients, to test against.

    Attributes:
        kind: ``noise`` sends noise of ``scale`` times the norm of its own update, ``flip`` the
            update times ``-scale``, ``scale`` the update times ``scale``; ``promote`` puts
            ``item`` after every event of its history and sends the update times ``scale``.
        share: of clients that are hostile, the same ones in every round.
        scale: see above.
        item: number of the promoted item in the catalog.
    """

    kind: Literal["none", "noise", "flip", "scale", "promote"] = "none"
    share: float = Field(default=0.1, ge=0, le=1)
    scale: float = Field(default=1.0, gt=0)
    item: int = Field(default=0, ge=0)


class FaultsConfig(Part):
    """Clients that fail, to test against.

    Attributes:
        drop: odds that a client that was asked does not answer.
        late: odds that it answers after the round has ended: its update is thrown away.
    """

    drop: float = Field(default=0.0, ge=0, lt=1)
    late: float = Field(default=0.0, ge=0, lt=1)


class SecureConfig(Part):
    """Secure aggregation: the server sees sums over a group of nodes, never those of one.

    Attributes:
        on: whether it is used; a node then sends masked numbers only (Bonawitz et al., CCS 2017).
        threshold: share of a group's nodes that must still be there at the end, to the nearest
            whole number; never less than half of them and one more, nor than three.
        group: nodes are dealt into groups of at most so many, since the work of a group grows with
            the square of its nodes. At least 5, so that none is left with fewer than three.
        range: largest absolute value of a node's sums. They are counted in steps of about
            ``nodes of the group * range / 2^31``; a node with larger ones sends nothing.
    """

    on: bool = False
    threshold: float = Field(default=0.67, gt=0.5, le=1)
    group: int = Field(default=32, ge=5, le=1024)
    range: float = Field(default=8.0, gt=0, allow_inf_nan=False)

    def needed(self, nodes: int) -> int:
        """How many of a group of so many nodes must be there at the end."""
        return max(3, nodes // 2 + 1, round(self.threshold * nodes))


class FederatedConfig(Part):
    """What every federated method has.

    Attributes:
        rounds: of training.
        clients: odds that a client (one user) takes part in a round.
        users: of the federation, where devices bring logs of their own; 0 takes those of the
            recipe's data who can train. With noise the mean divides by the share of them that is
            expected, whoever came.
        nodes: number of nodes that the users are dealt to in a simulation; 0 makes every user a
            node of its own.
        min_clients: replies, in users, that a round needs; with fewer it is asked again.
        min_users: of a node who must take part (or be measured), or its reply is of nobody: a sum
            over one user is that user's own update.
        wait: seconds that a round waits for replies; what comes later is thrown away. So long it
            waits for a node, too, when none is there.
        retries: times that a round is asked again before the federation stops.
        weighting: ``uniform`` gives every user of a round one vote, ``events`` as many as it has
            events to predict.
        held_out: share of users that never train, to evaluate on.
        evaluate_every: rounds between evaluations.
        evaluate_queries: validation queries used, a fixed random part when there are more.
        client_evaluation: nodes measure on their own users' newest event too, and send sums.
        metric: validation metric that chooses the best round; of the clients where the server
            has no validation data.
        upload: how numbers go up: ``float32``, or ``int8``, a byte each and a step for every row,
            rounded by chance where a message leaves its node.
        memory: MB that copies of networks may take on a node.
        local: training on a client.
        server: the server's step.
        privacy: clipping and noise.
        robust: aggregation against hostile nodes.
        secure: sums that the server sees of groups only.
        attack: hostile clients.
        faults: failing clients.
    """

    rounds: int = Field(default=60, ge=1)
    clients: float = Field(default=0.1, gt=0, le=1)
    users: int = Field(default=0, ge=0)
    nodes: int = Field(default=2, ge=0)
    min_clients: int = Field(default=1, ge=1)
    min_users: int = Field(default=1, ge=1)
    wait: float = Field(default=600.0, gt=0)
    retries: int = Field(default=3, ge=0)
    weighting: Literal["uniform", "events"] = "uniform"
    held_out: float = Field(default=0.0, ge=0, lt=1)
    evaluate_every: int = Field(default=5, ge=1)
    evaluate_queries: int = Field(default=2_000, ge=1)
    client_evaluation: bool = False
    metric: str = "ndcg@10"
    upload: Literal["float32", "int8"] = "float32"
    memory: int = Field(default=256, ge=1)
    local: LocalConfig = LocalConfig()
    server: ServerConfig = ServerConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    robust: RobustConfig = RobustConfig()
    secure: SecureConfig = SecureConfig()
    attack: AttackConfig = AttackConfig()
    faults: FaultsConfig = FaultsConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        parse_metric(self.metric)
        if self.privacy.clip and self.weighting != "uniform":
            raise ValueError(
                "privacy.clip needs weighting = uniform: what bounds a user bounds its votes too"
            )
        if self.privacy.noise and self.min_users > 1:
            raise ValueError(
                f"min_users = {self.min_users} lets one user decide whether others are counted, "
                "which epsilon does not cover; noise hides a lone user already. Leave one out"
            )
        if self.privacy.noise and self.client_evaluation:
            raise ValueError(
                "client_evaluation sends sums without noise, which epsilon does not cover. Leave "
                "one of them out"
            )
        if self.privacy.noise and self.privacy.where == "server" and self.upload == "int8":
            raise ValueError(
                "upload = int8 rounds sums before the server adds its noise, so epsilon would not "
                "hold. Set privacy.where = client, or upload = float32"
            )
        if self.privacy.noise and self.robust.rule != "mean":
            raise ValueError(
                f"privacy.noise is accounted for a mean; robust.rule = {self.robust.rule} has no "
                "epsilon here. Leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _sums_can_be_hidden(self) -> Self:
        if not self.secure.on:
            return self
        if self.robust.rule != "mean":
            raise ValueError(
                f"robust.rule = {self.robust.rule} looks at the update of every node, which "
                "secure.on hides. Leave one of them out"
            )
        if self.upload == "int8":
            raise ValueError(
                "upload = int8 gives every row of a node steps of its own, which cannot be added "
                "up under masks. Set upload = float32, or secure.on = false"
            )
        if 0 < self.nodes < 3:
            raise ValueError(
                f"nodes = {self.nodes} is too few for secure.on: a sum hides nobody among fewer "
                "than three. Set nodes to 3 or more, or to 0"
            )
        return self
