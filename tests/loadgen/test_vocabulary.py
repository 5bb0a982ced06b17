import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from bench.engines.engine import Checkpoint
from bench.errors import UsageError
from bench.loadgen.vocabulary import WORDS, Vocabulary, vocabulary

Checkpoints = Callable[..., Checkpoint]


def tokenizer(kind: str) -> Any:
    """A small tokenizer of one of the families in use: byte-level BPE, with or without BOS and EOS; plain bytes."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    merges = 256 if kind == "bytes" else 800
    trainer = trainers.BpeTrainer(
        vocab_size=merges, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator([" ".join(WORDS)] * 5, trainer)
    made.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    if kind == "enclosed":
        ids = [(token, made.token_to_id(token)) for token in ("<s>", "</s>")]
        made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ids)
    return made


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    folders: dict[str, Path] = {}

    def make(kind: str, vocab_size: int | None = None) -> Checkpoint:
        if kind not in folders:
            folders[kind] = tmp_path_factory.mktemp(kind)
            tokenizer(kind).save(str(folders[kind] / "tokenizer.json"))
        return Checkpoint(folders[kind], "test", None, "bf16", vocab_size=vocab_size)

    return make


@pytest.mark.parametrize("kind", ["merged", "enclosed", "bytes"])
@pytest.mark.parametrize("length", [3, 15, 128, 1000])
def test_text_encodes_to_exactly_as_many_tokens_as_asked_for(checkpoint: Checkpoints, kind: str, length: int) -> None:
    known = vocabulary(checkpoint(kind))
    for seed in range(20):
        text = known.text(length, random.Random(seed))
        assert len(known.tokenizer.encode(text).ids) == length


def test_a_length_below_the_tokenizers_own_tokens_is_refused_with_the_reason(checkpoint: Checkpoints) -> None:
    with pytest.raises(UsageError, match="no text is 2 tokens long for this tokenizer, which adds 2 of its own"):
        vocabulary(checkpoint("enclosed")).text(2, random.Random(1))


def test_ids_are_so_many_and_never_special(checkpoint: Checkpoints) -> None:
    known = vocabulary(checkpoint("merged"))
    ids = known.ids(20_000, random.Random(1))
    assert len(ids) == 20_000
    assert known.special
    assert not known.special & set(ids)
    assert max(ids) < known.size


def test_ids_stay_within_a_vocabulary_smaller_than_its_tokenizer(checkpoint: Checkpoints) -> None:
    assert max(vocabulary(checkpoint("merged", vocab_size=300)).ids(5000, random.Random(1))) < 300


def test_without_a_tokenizer_the_ends_of_the_vocabulary_are_left_alone() -> None:
    known = vocabulary(Checkpoint(None, "remote", None, "bf16", format="remote", vocab_size=100_000))
    ids = known.ids(20_000, random.Random(1))
    assert min(ids) >= 256
    assert max(ids) < 98_000


def test_without_anything_known_ids_are_small_enough_for_any_model() -> None:
    assert max(vocabulary(Checkpoint(None, "remote", None, "bf16")).ids(5000, random.Random(1))) < 4096


def test_a_damaged_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match=r"tokenizer\.json: not a tokenizer that can be read"):
        vocabulary(Checkpoint(tmp_path, "test", None, "bf16"))


def test_words_stand_in_where_there_is_no_tokenizer() -> None:
    assert len(Vocabulary(100, frozenset()).text(12, random.Random(1)).split()) == 12


@pytest.mark.parametrize("kind", ["plain", "enclosed", "bytes"])
def test_text_that_begins_with_another_has_exactly_the_length_of_both(checkpoint: Checkpoints, kind: str) -> None:
    known = vocabulary(checkpoint(kind))
    begun = known.text(40, random.Random("prefix"))
    for seed in range(5):
        text = known.text(100, random.Random(seed), begun)
        ids, before = known.tokenizer.encode(text).ids, known.tokenizer.encode(begun).ids
        assert len(ids) == 100
        # Where a tokenizer closes a text with a token of its own, that one moves.
        assert ids[:38] == before[:38]
