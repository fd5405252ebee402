"""In which language a caption is, as far as the audit says it."""

import pytest

from diffusers_tpo.negatives.audit.languages import SMALL_WORDS, language_of


@pytest.mark.parametrize(
    "text, language",
    [
        ("a red cat on the mat", "en"),
        ("eine rote Katze auf dem Tisch", "de"),
        ("un chat rouge dans le jardin", "fr"),
        ("un gato rojo y el perro", "es"),
        ("um gato vermelho com uma bola no jardim", "pt"),
        ("een rode kat op het bed", "nl"),
        ("一只红色的猫在垫子上", "zh"),
        ("赤い猫がマットの上にいる", "ja"),
        ("빨간 고양이", "ko"),
        ("рыжий кот на столе", "ru"),
        ("قطة حمراء", "ar"),
        ("un café à Zürich dans la neige", "fr"),
        ("masterpiece, 1girl, blue hair", "unknown"),
        ("...", "unknown"),
        ("", "unknown"),
        ("猫 cat", "unknown"),
        ("a \ud800 cat on the mat", "en"),
    ],
)
def test_languages(text, language):
    assert language_of(text) == language


def test_no_small_word_is_in_two_lists():
    words = [word for words in SMALL_WORDS.values() for word in words.split()]
    assert sorted(words) == sorted(set(words))
