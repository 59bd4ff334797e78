"""Objects that users name, with arguments: what is read, and what is refused."""

import pytest

from optax_extras._core.importing import check_call, load, load_attribute

BUNDLED = {"adam": 1, "sgd": 2}


def read(text):
    return load(text, BUNDLED, "`it`")


@pytest.mark.parametrize(
    ("text", "found", "arguments"),
    [
        ("adam", 1, {}),
        ("adam()", 1, {}),
        ("sgd (a=-1e-3, b='x(,)', c=[1, None], )", 2, None),
        ("math:pi(a=True)", 3.141592653589793, {"a": True}),
        ("os:path.sep(a=1e999)", "/", {"a": float("inf")}),
    ],
)
def test_names_and_arguments(text, found, arguments):
    expected = {"a": -0.001, "b": "x(,)", "c": [1, None]}
    assert read(text) == (found, expected if arguments is None else arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("adm", "`it` must be MODULE:ATTRIBUTE or one of adam, sgd; got 'adm'; did"),
        ("", "must be MODULE:ATTRIBUTE or one of adam, sgd; got ''"),
        ("adam(", "is not of the form NAME"),
        ("adam(a=1", "is not of the form NAME"),
        ("adam(a=1).b", "is not of the form NAME"),
        ("adam(a=1)(b=2)", "is not of the form NAME"),
        ("adam(a=1) + 1", "is not of the form NAME"),
        ("adam(" + "(" * 500, "is not of the form NAME"),
        ("adam(a=" + "-" * 100_000 + "1)", "is not of the form NAME|Python literal"),
        ("adam(1)", "must be written argument=value"),
        ("adam(**{})", "must be written argument=value"),
        ("adam(*[1])", "must be written argument=value"),
        ("adam(a=1, a=2)", "`a` is given twice in 'adam"),
        ("adam(a=abc)", r"`a` of 'adam\(a=abc\)' must be a Python literal, .* got abc"),
        ("adam(a=__import__('os').getcwd())", "must be a Python literal"),
        ("adam(a={[]: 1})", "must be a Python literal"),
        ("math:", "'math:' is not of the form MODULE:ATTRIBUTE"),
        (":pi", "':pi' is not of the form MODULE:ATTRIBUTE"),
        ("math:pie", "cannot load 'math:pie': .*'pie'; did you mean 'pi'?"),
        ("math:pi.x", "cannot load 'math:pi.x': 'float' object has no attribute 'x'"),
        ("./a b/mine.py:f", "write 'mine:f', in the folder 'a b'"),
        ("mine.py:f", "write 'mine:f', in the folder '.'"),
        (".mine:f", "cannot load '.mine:f': TypeError: the 'package' argument"),
        ("absent_module:f", "cannot load 'absent_module:f': No module named 'absent"),
    ],
)
def test_bad_texts(text, message):
    with pytest.raises(ValueError, match=message):
        read(text)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(:", r"SyntaxError: invalid syntax \(.*broken_0.py, line 1\)"),
        ("raise RuntimeError('boom\\nmore')", "RuntimeError: boom$"),
        ("import sys; sys.exit(3)", "SystemExit: 3$"),
        ("assert False", "AssertionError$"),
        ("import sys; sys.path.remove('')", "has no attribute 'x'"),
        ("def __getattr__(name): raise OSError(name)", "OSError: x$"),
    ],
)
def test_modules_that_cannot_be_loaded(tmp_path, monkeypatch, source, message, request):
    monkeypatch.chdir(tmp_path)
    name = f"broken_{next(iter(request.node.callspec.indices.values()))}"
    (tmp_path / f"{name}.py").write_text(source)
    with pytest.raises(ValueError, match=f"cannot load '{name}:x': .*{message}"):
        load_attribute(f"{name}:x")


def test_calls():
    check_call("it", lambda a, b=1, *c, **d: None, ["a", "z"])
    check_call("it", lambda a, key: None, ["a"], ["key", "other"])
    check_call("it", dict, ["a"])  # has no signature
    for function, arguments, message in (
        (3, [], "it must be a function, got 3"),
        (lambda a: None, ["a", "b"], "it does not take `b`; it takes `a`"),
        (lambda: None, ["b"], "it does not take `b`; it takes no arguments"),
        (lambda a, *, b: None, ["a"], "it needs `b`; give it in brackets"),
    ):
        with pytest.raises(ValueError, match=message):
            check_call("it", function, arguments)
