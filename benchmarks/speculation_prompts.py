"""Held-out user turns of five kinds, written by hand: what speculation is measured on.

None of them was used to train the EAGLE head: its texts begin with an opening of ``training/prompts.py`` and go on in the model's own
words.  20 to 150 tokens each.
"""

from __future__ import annotations

PROMPTS: dict[str, tuple[str, ...]] = {
    "rewrite": (
        "Make this sound more polite, it goes to our landlord: The heating is broken since Tuesday. Nobody came. We have a baby here and "
        "it is 14 degrees. Fix it this week or we pay less rent.",
        "Turn these notes into full sentences: meeting moved to 3pm thursday. budget not approved yet. Ana to ask finance about the "
        "laptops. next release slips two weeks because of the login bug.",
        "Put the text into the past tense. The train leaves the station at dawn. Rain runs down the windows, and an old man sleeps "
        "beside his suitcase while two children count the bridges.",
        "My English is not good, please correct it: Yesterday I have went to the doctor because my knee are hurting since two week. He "
        "say I must to rest and not doing sport until the end from month.",
        "Replace every 'he' by 'she' and 'his' by 'her', and change nothing else: He took his coat, locked his door and walked to the "
        "market, where he met his brother. He told him that he had sold his boat.",
        "Shorten this job advert to about half without losing facts. We are a family-run bakery in Leeds looking for a reliable and "
        "friendly person who would enjoy working with us in the early mornings, from 4 am to 10 am, five days a week. Experience is "
        "welcome but not needed, since we will train you. Pay is 13 pounds an hour, and bread is free.",
        "Rephrase for a ten-year-old: Photosynthesis converts carbon dioxide and water into glucose and oxygen, using energy that "
        "chlorophyll absorbs from sunlight. It takes place in the chloroplasts of plant cells.",
        "I wrote this review and it is too angry. Keep the facts, calm it down.\n\nWorst hotel ever!!! The room smelled of smoke "
        "although we booked non-smoking, breakfast was over at 9 even though the website says 10, and the man at reception just "
        "shrugged. Never again!",
    ),
    "summarise": (
        "TL;DR please: The city council voted on Monday to close Harbour Street to cars on weekends from May to September. Shop owners "
        "had warned of fewer customers, but a trial last year brought 18 percent more visitors. Delivery vans may still enter before ten "
        "in the morning. The council will look at the results in October and decide whether to make the rule permanent.",
        "What does this email want from me, in one line?\n\nHi Jonas, hope the move went well! We are putting together the slides for "
        "the board and still miss the figures for the second quarter. Could you send the sales by region before Wednesday noon? A rough "
        "table is enough. Best, Miriam",
        "Boil this down to three key points. Octopuses have three hearts and blue blood. Two of the hearts pump blood through the gills, "
        "the third through the body; it stops while the animal swims, which is why octopuses prefer to crawl. Most of their neurons sit "
        "in the arms, so an arm can taste, touch and even decide without asking the brain.",
        "Sum up the plot for somebody who has not seen the film: A retired safecracker is asked by his granddaughter to open a locked "
        "box that her late mother left behind. While they travel across the country to find the old key, they are followed by a man who "
        "believes that the box holds stolen diamonds. In the end it holds only letters.",
        "Give the gist of this abstract. We tracked the sleep of 412 nurses over six months with wrist sensors. Those on rotating shifts "
        "slept 49 minutes less per day than those on fixed nights, and reported twice as many errors with medication. A nap of 20 "
        "minutes during the shift halved the difference. We recommend that hospitals offer quiet rooms.",
        "Condense these instructions for the back of a packet: First bring one litre of water to the boil and add a pinch of salt. Then "
        "stir in the polenta slowly so that no lumps form. Turn the heat down and keep stirring for about eight minutes until it comes "
        "away from the side of the pot. Take it off the heat, add butter and cheese to taste, and let it rest for two minutes.",
        "Here is our chat, what did we agree on?\nLea: beach on saturday?\nTom: forecast says storm\nLea: sunday then?\nTom: ok but "
        "after 11, I play football\nLea: fine, I'll bring sandwiches, you bring drinks\nTom: deal, meet at the pier",
        "In two sentences, what was the Marshall Plan about according to this? After the Second World War, much of Europe lay in ruins. "
        "From 1948 to 1952 the United States gave about 13 billion dollars to sixteen countries to rebuild industry, roads and trade. "
        "The plan was also meant to limit the influence of the Soviet Union, which forbade its allies to take part.",
    ),
    "question": (
        "The Rialto Bridge is the oldest of the four bridges over the Grand Canal in Venice. The present stone bridge was finished in "
        "1591 and replaced a wooden one that had collapsed twice. Its architect was Antonio da Ponte.\n\nWho designed the stone bridge, "
        "and what stood there before?",
        "From the manual: 'Press and hold the power button for five seconds until the light turns blue. If it blinks red, charge the "
        "speaker for at least one hour and try again.' My speaker blinks red. What should I do now?",
        "Library hours: Monday to Thursday 9 to 20, Friday 9 to 18, Saturday 10 to 14, closed on Sundays and public holidays. Children "
        "under twelve need an adult with them after 17. Can my ten-year-old go there alone on Tuesday at six in the evening? Explain.",
        "Honey bees tell each other where flowers are by dancing. In the waggle dance the angle to the vertical shows the direction "
        "relative to the sun, and the length of the waggle shows the distance. How would a bee show flowers that are far away, straight "
        "towards the sun?",
        "Maria bought 3 notebooks for 2 euros each and a pen for 1.50 euros. She paid with a ten euro note. The shop had a discount of "
        "one euro for students, and Maria is a student. How much money did she get back? Show the steps.",
        "Basalt forms when lava cools quickly at the surface; its crystals are too small to see. Granite forms from magma that cools "
        "slowly deep underground, so its crystals grow large. I found a rock with large visible crystals. Which of the two is it more "
        "likely to be, and why?",
        "The contract says: 'Either party may end this agreement with three months' notice to the end of a quarter.' Today is the 10th "
        "of February. When is the earliest date on which the agreement can end?",
        "In 1854 John Snow mapped the deaths of a cholera outbreak in London and saw that they lay around one water pump in Broad "
        "Street. After the handle of the pump was removed, cases fell. Most doctors of the time believed that bad air spread the "
        "disease. What did Snow's map suggest about how cholera spreads?",
    ),
    "code": (
        "def median(values):\n    values = sorted(values)\n    middle = len(values) // 2\n    return values[middle]\n\nThis is wrong for "
        "lists of even length. Give me the corrected function with a docstring.",
        "I need a Python function parse_duration(text) that turns strings such as '1h30m', '45s' or '2d' into seconds and raises "
        "ValueError on anything else. Please add three assertions that test it.",
        "Rename the variables so that they say what they mean:\n\nfor (let i = 0; i < a.length; i++) {\n  const x = a[i];\n  if (x.p > "
        "m) {\n    m = x.p;\n    b = x;\n  }\n}",
        "Using only the standard library, read a CSV file called orders.csv with the columns customer, item and price, and print the "
        "total per customer, highest first.",
        "SELECT name, COUNT(*) FROM users u JOIN logins l ON l.user_id = u.id WHERE l.at > '2024-01-01' GROUP BY name; users who never "
        "logged in are missing from the result. How must the query look so that they appear with 0?",
        "Convert this loop to a list comprehension and explain in one sentence what it does:\n\nresult = []\nfor line in "
        "open('log.txt'):\n    if 'ERROR' in line:\n        result.append(line.strip().split(' ')[0])",
        "Show me a small C program that reverses a string in place without strrev, with a main function that prints the string before "
        "and after.",
        "My Flask route returns 500 when the JSON body has no 'email' key:\n\n@app.post('/signup')\ndef signup():\n    email = "
        "request.json['email']\n    users.append(email)\n    return {'ok': True}\n\nChange it to answer 400 with an error message "
        "instead.",
    ),
    "story": (
        "Somebody has been leaving a single chess piece on the kitchen window every morning. Write what happens when Ida stays awake to "
        "see who it is.",
        "I'd like a tale of about 200 words in which a lighthouse keeper and a seal become friends during one winter. It should end with "
        "the ice breaking.",
        "The last bus of the night never reached the terminal. Go on from here, first person, a bit spooky, but suitable for "
        "twelve-year-olds.",
        "Invent a legend that explains why the mountain above our village is split in two. Use the style of old folk tales.",
        "Two rival cooks are stuck in an elevator with nothing but a lemon and a bag of flour. Make it a comedy with a lot of dialogue.",
        "Give me the opening page of a detective novel set in Lisbon in 1932. The detective is a retired tram driver, and the victim is "
        "a clockmaker.",
        "Please make up something for my daughter Nora, who is five and loves snails. It should have a race in it, and nobody should lose.",
        "A robot that sorts letters in a post office finds one that is addressed to itself. What is in it? Tell it in the third person, "
        "slowly and with a quiet ending.",
    ),
}
"""By kind, eight each."""
