import pytest

from instructvla.evaluation.tabletop.meanings import all_titles
from instructvla.evaluation.tabletop.scene import Skill, Task
from instructvla.evaluation.tabletop.translations import LANGUAGES, relation, translated, translated_slots


@pytest.mark.parametrize(
    ("title", "french", "spanish"),
    [
        ("apple", "la pomme", "la manzana"),
        ("orange", "l'orange", "la naranja"),
        ("red block", "le bloc rouge", "el bloque rojo"),
        ("green ball", "la balle verte", "la pelota verde"),
        ("white plate", "l'assiette blanche", "el plato blanco"),
        ("purple bowl", "le bol violet", "el tazón morado"),
        ("black basket", "le panier noir", "la cesta negra"),
        ("drawer", "le tiroir", "el cajón"),
    ],
)
def test_names_have_article_and_agreeing_colour(title, french, spanish):
    assert (translated(title, "French"), translated(title, "Spanish")) == (french, spanish)


@pytest.mark.parametrize("language", LANGUAGES)
def test_all_titles_have_names_of_their_own(language):
    names = [translated(title, language) for title in all_titles()]
    assert len(set(names)) == len(names)


def test_prepositions_contract_with_articles():
    assert relation("near", "lemon", "French") == "près du citron"
    assert relation("near", "orange", "French") == "près de l'orange"
    assert relation("near", "lemon", "Spanish") == "cerca del limón"
    assert relation("on", "white plate", "Spanish") == "sobre el plato blanco"
    assert relation("in", "drawer", "French") == "dans le tiroir"


def test_tasks_give_what_their_commands_need():
    assert translated_slots(Task(Skill.PUT_IN, "apple", "drawer"), "French") == {
        "target": "la pomme",
        "destination": "le tiroir",
        "place": "dans le tiroir",
    }
    assert translated_slots(Task(Skill.MOVE_NEAR, "apple", "fork"), "Spanish")["near"] == "cerca del tenedor"


def test_unknown_languages_and_titles_are_refused():
    with pytest.raises(ValueError, match="unknown language 'German'; choose from French, Spanish"):
        translated("apple", "German")
    with pytest.raises(ValueError, match="no French name of 'pink block'"):
        translated("pink block", "French")
