"""Programs written by hand, whose bytes and products are known."""

import pytest

from coded_jax.aot.hlo import Module, arrays, total_bytes


def entry(*lines, parameters="x: f32[8]", before=""):
    """A program of these instructions, behind other computations."""
    body = "\n".join(f"  {line}" for line in lines)
    return Module(
        f"HloModule jit_f, is_scheduled=true, num_partitions=8\n\n{before}\n"
        f"ENTRY %main ({parameters}) -> f32[8] {{\n{body}\n}}\n"
    )


@pytest.mark.parametrize(
    "text, size",
    [
        ("f32[10]{0}", 40),
        ("f32[]", 4),
        ("bf16[3,5]", 30),
        # Tiles: the axes that vary fastest are padded, whichever these are.
        ("f32[3,5]{1,0:T(8,128)}", 4 * 8 * 128),
        ("f32[5,130]{0,1:T(8,128)}", 4 * 136 * 128),
        ("bf16[9,5]{1,0:T(8,128)(2,1)}", 2 * 16 * 128),
        # In a TPU's vector memory, a semaphore, in the memory of the host.
        ("f32[3,5]{1,0:T(8,128)S(1)}", 0),
        ("(f32[10]{0}, /*index=1*/(bf16[4]{0}, u8[3]))", 40 + 8 + 3),
    ],
)
def test_bytes_of_arrays(text, size):
    assert total_bytes(arrays(text)) == size


def test_operands_and_results_are_moved_and_views_are_not():
    module = entry(
        "%x = f32[8]{0} parameter(0)",
        "%c = f32[8]{0} constant({...})",
        "%b = f32[2,4]{1,0} bitcast(%x)",
        "%add = f32[8]{0} add(%x, %c)",
        "%t = (f32[8]{0}, f32[8]{0}) tuple(%add, %x)",
        "ROOT %g = f32[8]{0} get-tuple-element(%t), index=0",
    )
    assert module.moved() == 3 * 32


@pytest.mark.parametrize(
    "line, moved",
    [
        ("f32[2]{0} slice(%x), slice={[0:2]}", 2 * 8),
        ("f32[2]{0} dynamic-slice(%x, %i), dynamic_slice_sizes={2}", 2 * 8 + 4),
        ("f32[3]{0} gather(%x, %rows), slice_sizes={1}", 2 * 12 + 12),
        ("f32[100]{0} dynamic-update-slice(%x, %u, %i)", 2 * 8),
    ],
)
def test_a_part_is_moved(line, moved):
    module = entry(
        "%x = f32[100]{0} parameter(0)",
        "%u = f32[2]{0} parameter(1)",
        "%i = s32[] parameter(2)",
        "%rows = s32[3]{0} parameter(3)",
        f"ROOT %r = {line}",
    )
    assert module.moved() == moved


@pytest.mark.parametrize(
    "inside, result, moved",
    [
        # The whole of %p is read, as one of its two users needs that.
        (("%s = f32[2]{0} slice(%p)", "ROOT %r = add(%p, %s)"), "f32[100]{0}", 800),
        (("%s = f32[2]{0} slice(%p)", "ROOT %r = negate(%s)"), "f32[2]{0}", 16),
        # Parts of what it becomes are read of it as it is; no more than it has.
        (
            (
                "%b = bf16[100]{0} convert(%p)",
                "%v = bf16[10,10]{1,0} bitcast(%b)",
                "%s = bf16[1,10]{1,0} slice(%v)",
                "%t = bf16[1,10]{1,0} slice(%v)",
                "ROOT %r = add(%s, %t)",
            ),
            "bf16[1,10]{1,0}",
            2 * 40 + 20,
        ),
    ],
)
def test_a_fusion_that_takes_parts(inside, result, moved):
    body = "\n  ".join(inside).replace("%r = ", f"%r = {result} ")
    module = entry(
        "%x = f32[100]{0} parameter(0)",
        f"ROOT %f = {result} fusion(%x), kind=kLoop, calls=%fused",
        before=f"%fused (p: f32[100]) -> {result} {{\n"
        f"  %p = f32[100]{{0}} parameter(0)\n  {body}\n}}\n",
    )
    assert module.moved() == moved


def test_the_body_of_a_loop_once():
    module = entry(
        "%x = f32[100]{0} parameter(0)",
        "ROOT %w = f32[100]{0} while(%x), condition=%until, body=%step",
        before="""%step (s: f32[100]) -> f32[100] {
  %s = f32[100]{0} parameter(0)
  ROOT %n = f32[100]{0} negate(%s)
}
%until (e: f32[100]) -> pred[] {
  %e = f32[100]{0} parameter(0)
  ROOT %l = pred[] constant(true)
}
""",
    )
    assert module.moved() == 800
    names = [x.name for x in module.run()]
    assert names.count("n") == 1 and names.count("l") == 1


def test_products_with_axes_of_batches():
    module = entry(
        "%a = f32[4,3,5]{2,1,0} parameter(0)",
        "%b = f32[4,5,7]{2,1,0} parameter(1)",
        "ROOT %d = f32[4,3,7]{2,1,0} dot(%a, %b), lhs_batch_dims={0}, "
        "lhs_contracting_dims={2}, rhs_batch_dims={0}, rhs_contracting_dims={1}",
    )
    assert module.products() == 2 * 4 * 3 * 7 * 5


# A convolution of 2 images, 8x8 with 3 channels, to 8x8 with 16, kernel 5x5.
IMAGES, KERNEL, MAPS = "f32[2,8,8,3]", "f32[5,5,3,16]", "f32[2,8,8,16]"
PER_CALL = 2 * (2 * 8 * 8 * 16) * (5 * 5 * 3)
LABELS = "dim_labels=b01f_01io->b01f"


@pytest.mark.parametrize(
    "first, second, result, call",
    [
        (IMAGES, KERNEL, MAPS, f"convolution(%a, %b), window={{size=5x5}}, {LABELS}"),
        (
            IMAGES,
            KERNEL,
            f"({MAPS}, u8[64])",
            f'custom-call(%a, %b), {LABELS}, custom_call_target="__cudnn$convForward"',
        ),
        # As a TPU has it, whose own gradients are convolutions with other labels.
        (
            "f32[2,8,8,3]",
            "f32[16,3,5,5]",
            "f32[2,16,8,8]",
            "convolution(%a, %b), dim_labels=b01f_oi01->bf01",
        ),
    ],
)
def test_products_of_convolutions(first, second, result, call):
    module = entry(
        f"%a = {first} parameter(0)",
        f"%b = {second} parameter(1)",
        f"ROOT %c = {result} {call}",
    )
    assert module.products() == PER_CALL
