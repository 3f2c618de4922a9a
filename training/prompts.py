"""How user turns begin: by kind, a few words from which the model writes the rest of its own user's request.

Only openings stand here, never whole prompts, so that the texts with which speculation is measured later are none of these.
"""

from __future__ import annotations

import itertools

import numpy as np

# Kind and its share of the training text; "plain" starts from nothing, "raw" has no chat template around it.
SHARES = {
    "plain": 0.09, "rewrite": 0.14, "summarise": 0.12, "qa": 0.28, "code": 0.11, "story": 0.12,
    "explain": 0.05, "list": 0.03, "translate": 0.01, "chat": 0.03, "raw": 0.02,
}  # fmt: skip
KINDS = tuple(SHARES)
RAW = KINDS.index("raw")

# A user's turn should not end before the text that it announces: the fewest tokens that follow the opening.
MIN_TOKENS_OF_TEXT = 40
MIN_TOKENS_OTHERWISE = 3

_SUBJECT = ("text", "paragraph", "passage", "article", "email", "message", "letter", "note")
_GAP = (":\n\n", ": ", ":\n")

# How the text begins that a user has announced, half of the time: left alone, the model says much the same again and again.
_FIRST_WORDS = (
    "The", "A", "In", "On", "At", "After", "Before", "When", "While", "Although", "If", "Since", "As", "For", "There is", "There are", "It",
    "I", "We", "You", "They", "He", "She", "My", "Our", "Your", "Their", "His", "Her", "This", "These", "Many", "Most", "Some", "Every",
    "Last", "Next", "Yesterday", "Today", "Every year", "Once", "Two", "Three", "In 18", "In 19", "In 20", "Dear", "Hi", "Hello", "Hey",
    "Please", "Thank you", "Sorry", "According to", "Scientists", "Researchers", "A new", "The first", "The oldest", "The city of",
    "The river", "Birds", "Bees", "Water", "Coffee", "Music", "Trees", "Doctors", "Teachers", "Farmers", "Students", "Children", "Sales",
    "To make", "First", "Mix", "Customers", "Members", "Trains", "Cars", "Computers", "Ships", "Mountains", "Winter", "Rain", "Sleep",
)  # fmt: skip


def _product(*parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple("".join(words) for words in itertools.product(*parts))


OPENINGS: dict[str, tuple[str, ...]] = {
    "plain": ("",),
    "rewrite": _product(
        (
            "Rewrite the following ",
            "Please rewrite this ",
            "Rephrase the ",
            "Can you rewrite this ",
            "Edit this ",
            "Improve the following ",
        ),
        _SUBJECT,
        (
            "",
            " in a more formal tone",
            " so that it is shorter",
            " in simpler words",
            " to make it friendlier",
            " in the past tense",
            " to be more concise",
            " and correct its grammar",
        ),
        _GAP,
    )
    + _product(("Correct the mistakes in this ", "Fix the spelling and grammar of the following ", "Proofread this "), _SUBJECT, _GAP),
    "summarise": _product(
        (
            "Summarize the following ",
            "Summarise this ",
            "Please summarize this ",
            "Give me a short summary of this ",
            "Write a one-sentence summary of the ",
            "What are the main points of this ",
            "Shorten the following ",
        ),
        _SUBJECT,
        ("", " in one sentence", " in two or three sentences", " briefly", " in bullet points"),
        _GAP,
    ),
    "qa": (
        *_product(
            (
                "Read the passage and answer the question.",
                "Answer the question using the text below.",
                "Use the context to answer the question.",
                "Based on the following passage, answer the question at the end.",
                "Here is a paragraph, and then a question about it.",
            ),
            ("\n\nPassage: ", "\n\nContext: ", "\n\n", "\n\nText: The ", "\n\nPassage: In "),
        ),
        # the text first, and what is asked about it after it
        *_product(
            ("I read this", "I found this", "Here is what I know", "The book says", "The article says", "The sign says", "My notes say"),
            (": ", ":\n\n"),
        ),
        *_product(
            ("Passage: ", "Text: ", "Context: ", "Facts: ", "The rules: ", "The instructions: "),
            ("The", "A", "In", "If", "On", "At", "When", "Most", "Every", "After", ""),
        ),
        # sums and puzzles
        *_product(
            ("Tom", "Anna", "A farmer", "A shop", "A train", "A family", "A recipe", "My sister", "A worker", "A school"),
            (" has", " buys", " needs", " sells", " uses", ""),
        ),
        "If",
        "If a",
        "If I",
        "Suppose",
        "What is",
        "What are the",
        "Who was",
        "When did",
        "Where is",
        "Why do",
        "How does",
        "How many",
        "How much",
        "How long",
        "How far",
        "How can",
        "How do",
        "Which",
        "Why is",
        "Why are",
        "Why did",
        "Who",
        "When was",
        "What happens when",
        "What would happen if",
        "What is the difference between",
        "What kind of",
        "What causes",
        "What was",
        "In which",
        "Can",
        "Does",
        "Should I",
        "Is it",
        "Is it true that",
    ),
    "code": (
        *_product(
            (
                "Write a Python function ",
                "Write a function in JavaScript ",
                "Write a short program in C ",
                "Implement a Python class ",
                "Write a SQL query ",
                "Write a bash script ",
                "Create a Java method ",
                "Write Python code ",
                "Can you write a Python program ",
            ),
            ("that ", "to ", "which takes ", "for "),
        ),
        "How do I ",
        "Explain this code:\n\n",
        "What is wrong with this Python code?\n\n",
        "Find the bug:\n\n",
        "Complete this function:\n\ndef ",
    ),
    "story": _product(
        (
            "Write a short story about",
            "Tell me a story about",
            "Write a fairy tale about",
            "Begin a story with",
            "Write a poem about",
            "Write a funny story about",
            "Continue this story: ",
            "Write a scene in which",
            "Write a bedtime story for children about",
        ),
        ("", " a", " an old", " the", " two", " a little", " a lost"),
    ),
    "explain": _product(
        ("Explain", "Can you explain", "Please explain", "Describe", "Help me understand"),
        (" how", " why", " what", " the", " to a child", " the difference between", " in simple words"),
    ),
    "list": _product(
        ("List", "Give me a list of", "Name", "Suggest", "What are some", "Write down"),
        (" five", " three", " ten", " some ideas for", " tips for", " ways to", " examples of"),
    ),
    "translate": _product(
        ("Translate this sentence into ", "How do you say this in ", "Translate the following from English to "),
        ("French: ", "Spanish: ", "German: ", "Italian: "),
    ),
    "chat": (
        "Hi",
        "Hello",
        "Hey, I",
        "Good morning",
        "I feel",
        "I want to",
        "I need help with",
        "My friend",
        "Thanks",
        "Do you",
        "Can you help me",
        "What should I",
        "How are you",
        "I have a",
        "I am planning",
        "Let's talk about",
        "Yesterday I",
        "Could you recommend",
        "I'm",
    ),
    "raw": (
        "The",
        "In",
        "Once upon a time",
        "What is",
        "Write a",
        "Dear",
        "A",
        "How to",
        "It was",
        "The quick",
        "def ",
        "import ",
        "Question: ",
        "1. ",
        "# ",
        "There are",
        "When",
        "People",
        "My name is",
        "Explain",
        "One day",
        "This is",
        "Science",
        "The capital of",
        "List of",
    ),
}


def draw(generator: np.random.Generator, count: int, kind: int | None = None) -> list[tuple[int, str]]:
    """``count`` pairs of kind and opening; of one kind if given, else by ``SHARES``."""
    shares = np.array(list(SHARES.values()))
    kinds = generator.choice(len(KINDS), size=count, p=shares / shares.sum()) if kind is None else np.full(count, kind)
    openings = [OPENINGS[KINDS[index]] for index in kinds]
    result = []
    for index, some in zip(kinds, openings, strict=True):
        opening = some[generator.integers(len(some))]
        if index != RAW and _announces_text(opening) and generator.random() < 0.5:
            opening += _FIRST_WORDS[generator.integers(len(_FIRST_WORDS))]
        result.append((int(index), opening.rstrip(" ")))  # the space before the next word belongs to that word's token
    return result


def min_tokens(opening: str) -> int:
    """How many tokens of the user's must follow ``opening``."""
    return MIN_TOKENS_OF_TEXT if ":" in opening or "\n\n" in opening else MIN_TOKENS_OTHERWISE


def _announces_text(opening: str) -> bool:
    """Whether what follows ``opening`` is the text that it speaks of, and not code."""
    return opening.endswith((": ", ":\n", "\n\n")) and "code" not in opening and "bug" not in opening
