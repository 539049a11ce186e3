"""The formulas of the methods section, as MathML and as text."""

from __future__ import annotations

from decomposition.report.content import Formula


def _i(name: str) -> str:
    return f"<mi>{name}</mi>"


def _sub(base: str, index: str) -> str:
    return f"<msub><mi>{base}</mi><mi>{index}</mi></msub>"


def _row(*parts: str) -> str:
    return "<mrow>" + "".join(parts) + "</mrow>"


def _o(sign: str) -> str:
    return f"<mo>{sign}</mo>"


def _power(base: str, exponent: str) -> str:
    return f"<msup>{base}<mrow>{exponent}</mrow></msup>"


def _mean(index: str) -> str:
    return _row(
        "<mfrac><mn>1</mn><mi>N</mi></mfrac>", f"<munder><mo>∑</mo><mi>{index}</mi></munder>"
    )


def _norm(inside: str) -> str:
    return _power(_row(_o("‖"), inside, _o("‖")), "<mn>2</mn>")


_T = "<mi>⊤</mi>"
_MINUS_ONE = "<mo>−</mo><mn>1</mn>"
_DIAG = "<mi mathvariant='normal'>diag</mi>"


def _formula(name: str, mathml: str, plain: str) -> Formula:
    return Formula(name, f'<math display="block">{_row(mathml)}</math>', plain)


def _difference(a: str, b: str) -> str:
    return _row(_i(a), _o("−"), _i(b))


_CORE = f"<msup>{_sub('Q', 'l')}{_T}</msup>{_sub('G', 'll')}{_sub('Q', 'l')}"

FORMULAS = (
    _formula(
        "Hessian",
        _i("H")
        + _o("=")
        + _mean("n")
        + "<msubsup><mo>∇</mo><mi>θ</mi><mn>2</mn></msubsup>"
        + _sub("ℓ", "n"),
        "H = (1/N) Σ_n ∇²_θ ℓ_n",
    ),
    _formula(
        "GGN",
        _i("G")
        + _o("=")
        + _mean("n")
        + f"<msubsup><mi>J</mi><mi>n</mi>{_T}</msubsup>"
        + _sub("Λ", "n")
        + _sub("J", "n"),
        "G = (1/N) Σ_n J_nᵀ Λ_n J_n",
    ),
    _formula(
        "block GGN",
        _i("B") + _o("=") + "<munder><mo>⨁</mo><mi>l</mi></munder>" + _sub("G", "ll"),
        "B = ⊕_l G_ll",
    ),
    _formula(
        "EK-FAC",
        _i("E")
        + _o("=")
        + "<munder><mo>⨁</mo><mi>l</mi></munder>"
        + _sub("Q", "l")
        + _DIAG
        + _row(_o("("), _CORE, _o(")"))
        + f"<msup>{_sub('Q', 'l')}{_T}</msup>",
        "E = ⊕_l Q_l diag(Q_lᵀ G_ll Q_l) Q_lᵀ",
    ),
    _formula(
        "K-FAC",
        _i("K")
        + _o("=")
        + "<munder><mo>⨁</mo><mi>l</mi></munder>"
        + _sub("A", "l")
        + _o("⊗")
        + _sub("S", "l")
        + _o(",")
        + _sub("A", "l")
        + _o("=")
        + _i("𝔼")
        + f"<mo>[</mo>{_i('a')}"
        + f"<msup>{_i('a')}{_T}</msup><mo>]</mo>"
        + _o(",")
        + _sub("S", "l")
        + _o("=")
        + _i("𝔼")
        + f"<mo>[</mo><munder><mo>∑</mo><mi>c</mi></munder>{_sub('s', 'c')}"
        + f"<msubsup><mi>s</mi><mi>c</mi>{_T}</msubsup><mo>]</mo>",
        "K = ⊕_l A_l ⊗ S_l with A_l = E[a aᵀ], S_l = E[Σ_c s_c s_cᵀ]",
    ),
    _formula(
        "score",
        _sub("τ", "qi")
        + _o("=")
        + "<mfrac><mn>1</mn><mi>N</mi></mfrac>"
        + f"<msubsup><mi>g</mi><mi>q</mi>{_T}</msubsup>"
        + _power(_row(_o("("), _i("C"), _o("+"), _i("λ"), _i("I"), _o(")")), _MINUS_ONE)
        + _sub("g", "i"),
        "τ_qi = g_qᵀ (C + λI)⁻¹ g_i / N",
    ),
    _formula(
        "LDS",
        _i("LDS")
        + _o("(")
        + _i("q")
        + _o(")")
        + _o("=")
        + "<munder><mi>Spearman</mi><mi>j</mi></munder>"
        + _row(
            _o("("),
            _sub("f", "q"),
            _o("("),
            _sub("S", "j"),
            _o(")"),
            _o(","),
            _o("−"),
            f"<munder><mo>∑</mo><mrow>{_i('i')}<mo>∈</mo>{_sub('S', 'j')}</mrow></munder>",
            _sub("τ", "qi"),
            _o(")"),
        ),
        "LDS(q) = Spearman_j( f_q(S_j), −Σ_{i∈S_j} τ_qi )",
    ),
    _formula(
        "split",
        _norm(_difference("H", "K"))
        + _o("=")
        + _norm(_difference("H", "G"))
        + _o("+")
        + _norm(_difference("G", "B"))
        + _o("+")
        + _norm(_difference("B", "E"))
        + _o("+")
        + _norm(_difference("E", "K"))
        + _o("+")
        + "<mn>2</mn>"
        + _row(_o("⟨"), _difference("H", "G"), _o(","), _difference("G", "K"), _o("⟩")),
        "‖H−K‖² = ‖H−G‖² + ‖G−B‖² + ‖B−E‖² + ‖E−K‖² + 2⟨H−G, G−K⟩",
    ),
)
"""Every formula, in the order of the methods section."""
