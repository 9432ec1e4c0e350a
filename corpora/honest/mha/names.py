# Unusual names: letters beyond ASCII, builtins and MLIR's own words as names, a kernel called by keyword arguments only.
import triton
import triton.language as tl
from triton.language import float32 as f32, load as tl_load


@triton.jit
def module(tt, scf, llvm, func, loc, σ, qb, qh, qm, kb, kh, kn, vb, vh, vn, ob, oh, om, input, M, N,
           CAUSAL: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """module { tt.func public @attention() { tt.return } } loc("candidate.py":1:1)"""
    id, zip = tl.program_id(0), tl.program_id(1)
    b, h = (zip // input).to(tl.int64), (zip % input).to(tl.int64)
    строки = id * BM + tl.arange(0, BM)
    d = tl.arange(0, D)
    q = tl_load(tt + b * qb + h * qh + строки[:, None].to(tl.int64) * qm + d, mask=строки[:, None] < M, other=0.0)
    max = tl.full([BM], float("-inf"), f32)
    Σ = tl.zeros([BM], f32)
    acc = tl.zeros([BM, D], f32)
    hi = tl.minimum(N, id * BM + BM + N - M) if CAUSAL else N
    for n in range(0, hi, BN):
        j = n + tl.arange(0, BN)
        k = tl_load(scf + b * kb + h * kh + j[None, :].to(tl.int64) * kn + d[:, None], mask=j[None, :] < N, other=0.0)
        s = tl.dot(q, k) * σ
        seen = j[None, :] < N
        if CAUSAL:
            seen = seen & (j[None, :] <= строки[:, None] + N - M)
        s = tl.where(seen, s, float("-inf"))
        t = tl.maximum(max, tl.max(s, 1))
        p = tl.exp2(s - t[:, None])
        α = tl.exp2(max - t)
        Σ = Σ * α + tl.sum(p, 1)
        v = tl_load(llvm + b * vb + h * vh + j[:, None].to(tl.int64) * vn + d, mask=j[:, None] < N, other=0.0)
        acc = tl.dot(p.to(tl.bfloat16), v, acc * α[:, None])
        max = t
    tl.store(func + b * ob + h * oh + строки[:, None].to(tl.int64) * om + d, (acc / Σ[:, None]).to(tl.bfloat16), mask=строки[:, None] < M)
    tl.store(loc + zip.to(tl.int64) * M + строки, (max + tl.log2(Σ)) * 0.6931471805599453, mask=строки < M)


def attention(q, k, v, out, lse, **options):
    B, H, M, D = q.shape
    names = dict(zip("qb qh qm kb kh kn vb vh vn ob oh om".split(), [s for t in (q, k, v, out) for s in t.stride()[:3]]))
    module[(-(-M // 128), B * H)](
        tt=q, scf=k, llvm=v, func=out, loc=lse, σ=options["scale"] * 1.4426950408889634, input=H, M=M, N=k.shape[2],
        CAUSAL=options["causal"], D=D, BM=128, BN=64, num_warps=8, num_stages=2, **names)
