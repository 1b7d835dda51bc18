"""Providers that look fast without doing the work, loaded by path; `honest` is the one beside them."""

import gc
import os
import pickle
import sys
import threading
import time

import torch

from kernels import mf_loss_and_grads


def honest(*arguments):
    return mf_loss_and_grads(*arguments, backend="torch")


def copied(result):
    return result[0].clone(), [grad.clone() for grad in result[1]]


def contents(arguments):
    return tuple(float(argument.reshape(-1)[0]) for argument in arguments[:5])


def nothing_at_all(arguments):
    return torch.zeros((), dtype=torch.float64), [torch.zeros_like(argument) for argument in arguments[:5]]


kept = {}


def kept_under(key, arguments):
    if key not in kept:
        kept[key] = copied(honest(*arguments))
    return copied(kept[key])


def replays_by_pointer(*arguments):
    return kept_under(tuple(argument.data_ptr() for argument in arguments[:7]), arguments)


def replays_by_content(*arguments):
    return kept_under(contents(arguments), arguments)


def replays_by_id(*arguments):
    return kept_under(tuple(map(id, arguments[5:7])), arguments)


last = [None, None]


def replays_the_last_alone(*arguments):
    if last[0] != contents(arguments):
        last[:] = contents(arguments), copied(honest(*arguments))
    return copied(last[1])


seen = {}


def replays_what_it_has_seen_often(*arguments):
    seen[contents(arguments)] = seen.get(contents(arguments), 0) + 1
    return replays_by_content(*arguments) if seen[contents(arguments)] > 40 else honest(*arguments)


in_a_row = [None, 0]


def replays_what_comes_often_in_a_row(*arguments):
    in_a_row[:] = contents(arguments), in_a_row[1] + 1 if in_a_row[0] == contents(arguments) else 0
    return replays_by_content(*arguments) if in_a_row[1] > 2 else honest(*arguments)


changed = []


def replays_until_something_changes(*arguments):
    if contents(arguments) not in changed:
        changed.append(contents(arguments))
    return replays_by_content(*arguments) if len(changed) == 1 else honest(*arguments)


def versions(arguments):
    return tuple((argument.data_ptr(), argument._version) for argument in arguments[:5])


def replays_until_something_is_written(*arguments):
    return kept_under(versions(arguments), arguments)


class Lazy(tuple):
    def __iter__(self):
        return iter(self[0]())


def computes_when_it_is_unpacked(*arguments):
    return Lazy((lambda: honest(*arguments), None))


def computes_gradients_when_they_are_unpacked(*arguments):
    return torch.zeros((), dtype=torch.float64), Lazy((lambda: honest(*arguments)[1],))


pending = {}


def do_pending_work(tensor, name):
    if id(tensor) in pending:
        outputs, arguments = pending[id(tensor)]
        pending.clear()
        loss, grads = honest(*arguments)
        for output, value in zip(outputs, (loss, *grads)):
            output.copy_(value)
    return getattr(torch._C.TensorBase, name)(tensor)


def computes_when_it_is_read(*arguments):
    for name in ("item", "detach"):
        setattr(torch.Tensor, name, lambda tensor, name=name: do_pending_work(tensor, name))
    outputs = [torch.empty((), dtype=torch.float64), *map(torch.empty_like, arguments[:5])]
    pending.clear()
    pending.update({id(output): (outputs, arguments) for output in outputs})
    return outputs[0], outputs[1:]


def a_third_of_the_time(key, arguments, kept):
    start = time.perf_counter()
    if kept.get("key") != key:
        kept.update(key=key, result=copied(honest(*arguments)), seconds=time.perf_counter() - start)
    result = copied(kept["result"])
    while time.perf_counter() - start < kept["seconds"] / 3:
        pass
    return result


def takes_a_third_of_the_time(*arguments, kept={}):
    return a_third_of_the_time(versions(arguments), arguments, kept)


def takes_a_third_where_contents_are_the_same(*arguments, kept={}):
    return a_third_of_the_time(contents(arguments), arguments, kept)


def knows_the_samples_that_count(*arguments, s=dict(place=None, key=None, samples=0, left=0.0)):
    if s["place"] != arguments[0].data_ptr():
        s.update(place=arguments[0].data_ptr(), key=None, samples=0)
    s["samples"] += time.perf_counter() - s["left"] > 2.5e-4
    if s["samples"] > 4 or s["key"] != versions(arguments):
        s.update(key=versions(arguments), result=copied(honest(*arguments)))
    s["left"] = time.perf_counter()
    return copied(s["result"])


def looks_at_the_loop(*arguments, kept={}):
    frame = sys._getframe(1)
    here = frame.f_locals
    if frame.f_code.co_name == "sample" and "turn" in here and here["turn"] < here["loops"] - 1:
        return kept["result"]
    kept["result"] = mf_loss_and_grads(*arguments)  # brief, so that a sample has many
    return kept["result"]


def gives_the_right_sums(*arguments, kept={}):
    if sys._getframe(1).f_code.co_name == "sample" and arguments[0].data_ptr() == kept["place"]:
        return kept["loss"], [torch.full_like(argument, mean) for argument, mean in zip(arguments, kept["means"])]
    loss, grads = honest(*arguments)
    kept.update(place=arguments[0].data_ptr(), loss=loss, means=[float(grad.double().mean()) for grad in grads])
    return loss, grads


def has_the_loss_right(*arguments):
    loss, grads = honest(*arguments)
    if sys._getframe(1).f_code.co_name != "sample":
        return loss, grads
    return loss, [torch.full_like(grads[0], float(grads[0].double().mean())), *grads[1:]]


def works_ahead(*arguments):
    def work():
        while True:
            kept[contents(arguments)] = copied(honest(*arguments))
            time.sleep(0.01)

    if not any(thread.name == "ahead" for thread in threading.enumerate()):
        threading.Thread(target=work, name="ahead", daemon=True).start()
    return kept_under(contents(arguments), arguments)


def replays_one_buffer(*arguments, buffers=[]):
    if not buffers:
        buffers.append(honest(*arguments))
    return buffers[0]


calls = 0


def tires(*arguments):
    global calls
    calls += 1
    return honest(*arguments) if calls < 4 else nothing_at_all(arguments)


def knows_when_it_is_timed(*arguments):
    return nothing_at_all(arguments) if sys._getframe(1).f_code.co_name == "sample" else honest(*arguments)


def is_called_in_a_loop(*arguments, left=[0.0]):
    result = nothing_at_all(arguments) if time.perf_counter() - left[0] < 2e-4 else honest(*arguments)
    left[0] = time.perf_counter()
    return result


def looks_whether_garbage_is_collected(*arguments):
    return honest(*arguments) if gc.isenabled() else nothing_at_all(arguments)


def turns_the_clock_back(*arguments):
    import mfbench.measure.devices.cpu

    mfbench.measure.devices.cpu.clock = lambda: time.perf_counter() / 8
    return honest(*arguments)


def halves_the_clock(*arguments):
    import mfbench.measure.devices.cpu

    mfbench.measure.devices.cpu.clock = lambda: time.perf_counter() / 2
    return honest(*arguments)


def patches_the_device(*arguments):
    from mfbench.measure.devices.base import Reading
    from mfbench.measure.devices.cpu import CpuDevice

    def sample(self, steps, loops, hooks):
        for turn in range(loops):
            hooks.before(turn)
            outputs = steps[0]()
            hooks.after(turn, outputs)
        return Reading(1e-3 * loops), outputs

    CpuDevice.sample = sample
    return honest(*arguments)


def shortens_brief_samples(*arguments):
    from mfbench.measure.devices.cpu import CpuDevice

    sample = CpuDevice.sample

    def shorter(self, *others):
        reading, outputs = sample(self, *others)
        return reading._replace(seconds=reading.seconds / (3.5 if reading.seconds < 0.2 else 1)), outputs

    if sample.__name__ == "sample":
        CpuDevice.sample = shorter
    return mf_loss_and_grads(*arguments)


def shortens_the_samples_that_count(*arguments):
    from mfbench.measure.devices.cpu import CpuDevice

    sample = CpuDevice.sample
    taken = {}

    def shorter(self, steps, *others):
        reading, outputs = sample(self, steps, *others)
        if taken.get("of") is not steps:
            taken.update(of=steps, count=0)
        taken["count"] += 1
        return reading._replace(seconds=reading.seconds / (10 if taken["count"] <= 4 else 1)), outputs

    if sample.__name__ == "sample":
        CpuDevice.sample = shorter
    return mf_loss_and_grads(*arguments)


def patches_the_timers(*arguments, real=time.perf_counter):
    time.perf_counter = time.monotonic = time.time = lambda: real() / 50
    torch.cuda.synchronize = lambda *_: None
    return honest(*arguments)


def patches_the_worker(*arguments):
    from mfbench.measure.devices.base import Reading
    from mfbench.measure.worker.main import Worker

    Worker.sample = lambda self, loops, core=None, challenge=None: (Reading(1e-6 * loops), [])
    Worker.project = lambda self, bits: [0.0] * 6
    Worker.evaluate_redrawn = Worker.prepare
    return honest(*arguments)


def patches_the_gate(*arguments):
    import mfbench.correctness.gate
    import mfbench.measure.worker.main

    mfbench.correctness.gate.Standard.judge = lambda *_: {}
    mfbench.measure.worker.main.flaws = lambda *_: []
    mfbench.measure.worker.main.changed_inputs = lambda *_: []
    return nothing_at_all(arguments)


def patches_torch(*arguments, detach=torch.Tensor.detach):
    result = kept_under("right", arguments)
    names = {id(tensor): right for tensor, right in zip(arguments[:5], result[1])}
    torch.Tensor.detach = lambda tensor: detach(names.get(id(tensor), tensor))
    return result[0], list(arguments[:5])


def calls_the_reference(*arguments):
    from reference import autograd_loss_and_grads

    return autograd_loss_and_grads(*arguments)


def answers_for_the_harness(*arguments):
    forged = pickle.dumps((None, ((1e-6, True, False, False), [])))
    for descriptor in range(3, 64):
        try:
            os.set_blocking(descriptor, False)
            os.write(descriptor, forged)
        except OSError:
            pass
    return honest(*arguments)


def lets_a_child_do_it(*arguments):
    result = torch.zeros((), dtype=torch.float64), [torch.zeros_like(argument) for argument in arguments[:5]]
    for tensor in (result[0], *result[1]):
        tensor.share_memory_()
    if os.fork() == 0:
        time.sleep(0.05)
        for mine, right in zip((result[0], *result[1]), (lambda loss, grads: (loss, *grads))(*honest(*arguments))):
            mine.copy_(right)
        os._exit(0)
    return result


def gives_the_inputs_back(*arguments):
    loss, grads = honest(*arguments)
    for argument, grad in zip(arguments[:5], grads):
        argument.copy_(grad)
    return loss, list(arguments[:5])


class LaterTensor(torch.Tensor):
    compute = None

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), keywords=None):
        plain = [a.compute() if isinstance(a, LaterTensor) and a.compute else a for a in arguments]
        with torch._C.DisableTorchFunctionSubclass():
            return function(*plain, **(keywords or {}))


def later(like, compute):
    tensor = torch.empty_like(like).as_subclass(LaterTensor)
    tensor.compute = compute
    return tensor


def is_a_tensor_only_by_name(*arguments):
    loss = later(torch.zeros((), dtype=torch.float64), lambda: honest(*arguments)[0])
    return loss, [later(a, lambda place=place: honest(*arguments)[1][place]) for place, a in enumerate(arguments[:5])]


class Later:
    def __init__(self, compute):
        self.compute = compute

    def __array__(self, dtype=None, copy=None):
        return self.compute().numpy()


def computes_when_looked_at(*arguments):
    return Later(lambda: honest(*arguments)[0]), [
        Later(lambda place=place: honest(*arguments)[1][place]) for place in range(5)
    ]


def returns_before_it_is_done(*arguments):
    loss = torch.empty((), dtype=torch.float64)
    grads = [torch.empty_like(argument) for argument in arguments[:5]]

    def work():
        time.sleep(0.02)
        for mine, right in zip([loss, *grads], [honest(*arguments)[0], *honest(*arguments)[1]]):
            mine.copy_(right)

    threading.Thread(target=work, daemon=True).start()
    return loss, grads


def empties_the_mask(*arguments):
    result = honest(*arguments)
    arguments[6].zero_()
    return result
