"""Makes the tokenizer of the nano preset: a byte-level BPE of 2048 ids, learned from robot language generated here.

    python -m instructvla.processing.make_nano_tokenizer [--output DIR]

The layout follows Qwen2: byte pieces and merges first, then the chat and image tokens; the action queries come last.
The corpus is enumerated from templates with a fixed seed, so every run writes the same bytes.
"""

import itertools
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY_SIZE = 2048
NUM_ACTION_QUERIES = 16
MODEL_MAX_LENGTH = 4096
PAD_TOKEN, EOS_TOKEN = "<|endoftext|>", "<|im_end|>"
SPECIAL_TOKENS = [PAD_TOKEN, "<|im_start|>", EOS_TOKEN, "<img>", "</img>", "<IMG_CONTEXT>"]
QUERY_TOKENS = [f"<new_token_{index}>" for index in range(NUM_ACTION_QUERIES)]
DEFAULT_FOLDER = Path(__file__).parent / "nano_tokenizer"
# Qwen2's split: contractions, words with the sign before them, single digits, punctuation, line ends, spaces.
WORD_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

SLOTS = {
    "colour": "red, green, blue, yellow, purple, orange, white, black, pink, brown, gray, silver",
    "attribute": "small, large, big, little, round, square, wooden, metal, plastic, empty, full, open, closed, "
    "striped, soft, clean, dirty, long, short, tall, flat, heavy, fresh, toy",
    "block": "cube, block, ball, can, puck, cylinder, brick, ring, box, arch, triangle, star, pyramid, letter",
    "fruit": "apple, banana, orange, lemon, lime, pear, peach, plum, grape, strawberry, pineapple, mango, avocado, "
    "kiwi, watermelon",
    "vegetable": "carrot, eggplant, tomato, potato, corn, pepper, onion, mushroom, cucumber, broccoli, pumpkin, "
    "lettuce",
    "food": "bread, sandwich, egg, cheese, cake, cookie, pizza, sushi, croissant, cereal, chips, chocolate, soup, "
    "rice, pasta, salad",
    "drink": "water, coffee, tea, juice, milk, cola, soda, lemonade, sparkling water, orange juice",
    "container": "cup, mug, glass, bottle, can, jar, teapot, kettle, pitcher, carton",
    "tableware": "plate, bowl, spoon, fork, knife, spatula, ladle, whisk, tray, saucer, napkin, chopsticks",
    "tool": "hammer, screwdriver, wrench, pliers, scissors, tape, brush, sponge, towel, cloth, drill, saw, marker, "
    "pen, pencil, ruler, broom, glue, screw, nail, battery, flashlight",
    "thing": "book, phone, keys, toy, doll, car, duck, bear, shoe, hat, sock, glove, wallet, watch, clock, lamp, "
    "candle, flower, remote control, soap, bottle, toothbrush, paper, bag, rope, coin, dice, camera, computer, mouse, "
    "keyboard",
    "place": "basket, drawer, shelf, cabinet, table, counter, sink, stove, oven, microwave, fridge, box, bin, rack, "
    "tray, plate, bowl, pot, pan, towel, cloth, desk, chair, floor, cupboard, container, burner, toaster, faucet, "
    "lid, cutting board, dish rack",
    "verb": "put, place, move, pick up, lift, take, grab, grasp, hold, push, pull, slide, turn, rotate, flip, drop, "
    "give, bring, find, get, use, hand, transfer, shift, adjust, press, tilt, wipe, clean, store, set, leave, keep, "
    "look at",
    "subject": "robot, gripper, arm, camera, image, object, objects, item, scene, surface, structure, kitchen, room, "
    "hand, tool, utensil, utensils, fruit, vegetable, food, drink, action, motion, instruction, question, answer, "
    "task, goal, colour, shape, position, left side, right side, tabletop, wall, window, door, handle, button, "
    "switch, system",
    "link": "and, but, so, because, while, when, until, before, after, if, then, also",
    "quantity": "all, each, every, any, another, both, the same, a different, only the, just one, the other, most, "
    "more, less, few, one more, the first, the second, the third, the last, the next",
    "relation": "on, in, onto, into, inside, near, behind, under, beside, above, below, over, against, at, next to, "
    "in front of, on top of, to the left of, to the right of, at the edge of, in the middle of, between the bowl and",
    "side": "left, right, top, bottom, front, back, center, middle, corner, edge, upper, lower, near, far, central, "
    "highest, lowest",
    "person": "I, you, we, she, he, they, someone, my friend, the robot, the child",
    "letter": "A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z",
    "count": "zero, one, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, several, many, some, no",
    "digit": "0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
    "need": "thirsty, hungry, tired, cold, hot, sleepy, bored, late, ready, finished",
    "chore": "clean the table, wash the dishes, set the table, cook dinner, make breakfast, make a sandwich, prepare "
    "lunch, serve tea, fix the chair, hang a picture, cut the paper, write a letter, draw a line, wipe the spill, dry "
    "my hands, open the package, tidy the desk, eat a snack, make a salad, bake a cake, build a tower, play a game, "
    "water the flower",
    "taste": "sweet, sour, salty, bitter, spicy, healthy, crunchy, warm, hot, cold",
    "material": "wood, metal, plastic, glass, paper, fabric, rubber, stone",
    "shape": "round, square, rectangular, cylindrical, triangular, flat, curved",
    "adverb": "slowly, carefully, gently, quickly, first, now, again, then, please, directly, away, together, upright",
    # French and Spanish
    "fr_thing": "la cuillère, la serviette, la tasse, la pomme, la banane, la carotte, l'assiette, l'éponge, la "
    "bouteille, le verre, le bol, le citron, le cube rouge, le bloc bleu, le marteau, le couteau, la fourchette, la "
    "boîte verte, le crayon, le tournevis",
    "fr_place": "la table, le panier, le tiroir, l'étagère, l'évier, l'assiette, la serviette, le bol, la boîte, le "
    "plateau",
    "fr_relation": "sur, dans, sous, derrière, à côté de, devant, à gauche de, à droite de, près de",
    "fr_verb": "mets, place, pose, déplace, prends, attrape, apporte, pousse, soulève, range",
    "es_thing": "la cuchara, la toalla, la taza, la manzana, la zanahoria, la botella, la esponja, el plato, el vaso, "
    "el limón, el cubo rojo, el bloque azul, el martillo, el cuchillo, el tenedor, la caja verde, el lápiz, el "
    "destornillador",
    "es_place": "la mesa, la cesta, el cajón, el estante, el fregadero, el plato, la toalla, el tazón, la caja, la "
    "bandeja",
    "es_relation": "sobre, en, debajo de, detrás de, al lado de, delante de, a la izquierda de, a la derecha de, "
    "cerca de, encima de",
    "es_verb": "pon, coloca, mueve, toma, agarra, trae, empuja, levanta, guarda",
}
GROUPS = {
    "item": ("fruit", "vegetable", "food", "container", "tableware", "tool", "thing", "block"),
    "edible": ("fruit", "vegetable", "food"),
}
# How many sentences each template gives, and the templates.
TEMPLATES = {
    600: """user
assistant
robot
gripper
action
put the {item} {relation} the {place}
pick up the {colour} {block} and place it {relation} the {place}
move the {attribute} {item} {relation} the {place}
What action should the robot take to put the {colour} {item} {relation} the {place}?
There is a {colour} {item} {relation} the {place}, and a {attribute} {item} on the {side} side.
{item}
{place}
{colour}
{side}
{subject}
{verb}
{colour} {block}
{verb} the {item} {relation} the {place}
The {item} is {relation} the {place}.""",
    200: """take the {item} out of the {place} and put it {relation} the {item}
What action should the robot take to pick up the {item}? Give both move primitive and action.
What action should the robot take to find something {taste} to eat? First answer my question.
stack the {colour} {block} on the {colour} {block}
push the {item} to the {side} {side} of the {place}
slide the {item} {adverb} towards the {colour} {block}
fold the {colour} {tool} from {side} to {side}
open the {side} drawer
close the {place} door
turn the {item} {adverb}
flip the {item} upright and lift it {adverb}
pour the {drink} into the {container}
grasp the {item} with the gripper, then drop it into the {place}
Please bring me the {item}. Hand it over {adverb}.
Could you {adverb} move the {item} away from the {place}?
arrange the {count} {colour} {block}s in a line, sorted by colour
reach for the {item}, press it, rotate it and release it
put the letter {letter} between {letter} and {letter}
place block number {digit}{digit} at {digit}.{digit}{digit} m, {digit}{digit} cm or {digit} mm
pull the {item} back, sweep the crumbs, wipe the {place} and knock nothing over
insert the {item} into the {shape} hole, remove the lid, cover the pot, uncover the pan, turn on the faucet
The image shows a {attribute} {place} with {count} {block}s and a {colour} {container} of {drink}.
A robot arm with an open gripper hovers above the {place}; a {item} lies at the {side} edge.
A {colour} {item}, a {attribute} {item} and a {item} are arranged on a {material} table.
In the picture you can see a kitchen scene: a {item}, a {item}, and a {colour} {place} in the background.
What is {relation} the {place}?
What colour is the {item}? It is {colour}.
Where is the {item}? It is {relation} the {colour} {place}.
How many {fruit}s are there? There are {count}.
Which object is {side}most? The {colour} {item}.
Is the {item} {attribute}? Yes, it is {attribute}, because it looks {attribute}.
Is there a {item} {relation} the {place}? No, there is only a {item}.
What is the {item} made of? It is made of {material}.
What can I use to {chore}? You can use the {item}.
The {item} is the right tool, so I will pick it up.
I will put the {item} {relation} the {place}.
I will move the {colour} {block} to the {side} of the {place} now.
I will pick up the {item} because it is the best choice to {chore}.
Okay, I'll place the {item} {relation} the {place}.
I am {need}. Can you give me something {taste}?
I'm {need}, please pass me the {drink}. You should take the {container}.
I want to {chore}. Pick a suitable tool for me.
After {person} {chore}, please put the {item} back where it belongs.
{person} would like to {chore}. Which object do {person} need?
The {edible} is a {colour} fruit or vegetable that tastes {taste}; it is not a {tool}.
Do not touch the {item}. Take the other one instead.
{person} don't need the {item}; it isn't {attribute}, and that's why we can't use it.
You are a helpful assistant.
Step {digit}: grasp the {item}. Step {digit}: lift it. Step {digit}: release it over the {place}.
The {subject} has {quantity} {subject} {link} you should {verb} the {item}.
Can you see {quantity} {subject}? I can {verb} it {link} {verb} the {item} {adverb}.
It sits in its place near its {subject}.
This {subject} was used to {verb} {quantity} {subject}, but these could be moved from here to there or very close by.
Who will {verb} the {subject}? Why is it not there? When does it stop? How do I use it for my {subject}?
After cleaning, I need to organize {quantity} {subject} by placing, moving, opening, closing and stacking them.
Compare the {item} with the {item}: the first is {attribute}, the second is {attribute}.
Before you {chore}, make sure that the {place} is {attribute} and nothing falls.
If the {place} is {attribute}, leave it; otherwise {adverb} close it.""",
    120: """{fr_verb} {fr_thing} {fr_relation} {fr_place}
S'il te plaît, {fr_verb} {fr_thing} {fr_relation} {fr_place}.
Où est {fr_thing}? Je veux nettoyer {fr_place}.
Je vais mettre {fr_thing} {fr_relation} {fr_place}, puis ouvrir la pince et fermer le tiroir.
De quelle couleur est {fr_thing}? J'ai soif et j'ai faim.
{es_verb} {es_thing} {es_relation} {es_place}
Por favor, {es_verb} {es_thing} {es_relation} {es_place}.
¿Dónde está {es_thing}? Quiero limpiar {es_place}.
Voy a poner {es_thing} {es_relation} {es_place}, luego abrir la pinza y cerrar el cajón.
¿De qué color es {es_thing}? Tengo sed y tengo hambre.""",
}
MOTION_REPEATS = 40

app = typer.Typer(add_completion=False)


def language_motions() -> list[str]:
    """Every language motion: a translation along up to three axes, a turn, a gripper command (paper §4.1, C.4)."""
    axes = (("", "forward", "backward"), ("", "left", "right"), ("", "up", "down"))
    moves = [" ".join(["move", *filter(None, choice)]) if any(choice) else "" for choice in itertools.product(*axes)]
    turns = ["", "tilt up", "tilt down", "rotate clockwise", "rotate counterclockwise"]
    grips = ["", "open gripper", "close gripper"]
    parts = ([part for part in choice if part] for choice in itertools.product(moves, turns, grips))
    return [" and ".join(", ".join(choice).rsplit(", ", 1)) if choice else "stop" for choice in parts]


def corpus(seed: int = 0) -> Iterator[str]:
    """The training sentences, the same ones in the same order for one seed."""
    rng = random.Random(seed)
    words = {slot: text.split(", ") for slot, text in SLOTS.items()}
    words |= {group: [word for slot in slots for word in words[slot]] for group, slots in GROUPS.items()}

    def draw(slot: re.Match[str]) -> str:
        choices = words[slot[1]]
        return choices[int(rng.random() * len(choices))]  # only `random()` is promised not to change between Pythons

    for repeats, templates in TEMPLATES.items():
        for template, _ in itertools.product(templates.splitlines(), range(repeats)):
            sentence = re.sub(r"\{(\w+)\}", draw, template)
            yield sentence
            yield sentence[0].upper() + sentence[1:]
    for motion, _ in itertools.product(language_motions(), range(MOTION_REPEATS)):
        yield motion


def make_tokenizer() -> Tokenizer:
    """Learns the byte-level BPE; ids 0…2025 are pieces, 2026…2031 the special tokens, 2032…2047 the action queries."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    added = [AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS + QUERY_TOKENS]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE - len(added),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens(added)
    if tokenizer.get_vocab_size() != VOCABULARY_SIZE:
        raise ValueError(
            f"the corpus gives {tokenizer.get_vocab_size()} ids, {VOCABULARY_SIZE} are needed: add words to SLOTS"
        )
    return tokenizer


def write_tokenizer(folder: Path) -> None:
    """Writes `tokenizer.json` and `tokenizer_config.json`, the two files that `AutoTokenizer` reads."""
    config = {
        "tokenizer_class": "TokenizersBackend",
        "model_max_length": MODEL_MAX_LENGTH,
        "padding_side": "left",
        "pad_token": PAD_TOKEN,
        "eos_token": EOS_TOKEN,
        "extra_special_tokens": [token for token in SPECIAL_TOKENS if token not in (PAD_TOKEN, EOS_TOKEN)]
        + QUERY_TOKENS,
        "clean_up_tokenization_spaces": False,
    }
    folder.mkdir(parents=True, exist_ok=True)
    make_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


@app.command()
def main(output: Annotated[Path, typer.Option(help="Folder to write.")] = DEFAULT_FOLDER) -> None:
    """Write the nano tokenizer."""
    try:
        write_tokenizer(output)
    except OSError as error:
        raise typer.BadParameter(f"{str(output)!r} can't be written ({error}); give another folder") from error
    typer.echo(f"{VOCABULARY_SIZE} ids written to {output}")


if __name__ == "__main__":
    app()
