"""``jvae export --page``."""

import pytest

from jvae_jax.commands import export


def export_page(*args):
    with pytest.raises(SystemExit) as status:
        export.main(["--page", *args])
    return status.value.code


def test_page_is_the_only_file(reference, tmp_path, capsys):
    workdir = f"--workdir={reference[0].workdir}"
    site = tmp_path / "new" / "site"
    assert export_page(workdir, f"--output={site}") == 0
    assert capsys.readouterr().out.endswith(f"\nindex.html in {site}\n")
    (page,) = site.iterdir()
    assert page.name == "index.html"
    content = page.read_bytes()
    assert b"toy" in content
    assert export_page(workdir, f"--output={site}") != 0
    assert "already exists and isn't empty" in capsys.readouterr().err
    assert page.read_bytes() == content
