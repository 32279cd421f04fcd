"""What must be the same before and after somebody's model was used."""

import torch


def state_of(model):
    hooks = [
        len(getattr(m, name))
        for m in model.modules()
        for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    ]
    return (
        [m.training for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
        [t.clone() for t in model.state_dict().values()],
        hooks,
    )


def assert_same_state(before, after):
    assert before[0] == after[0]
    assert before[1] == after[1]
    assert before[3] == after[3]
    for a, b in zip(before[2], after[2], strict=True):
        assert torch.equal(a, b)
